from __future__ import annotations

import base64
import json
import resource
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import urllib3

from edgefl.errors import StorageError
from edgefl.invitation import Invitation
from edgefl.layout import Parameter
from edgefl_server import start_verb, starting
from edgefl_server.operator_file import OperatorFile
from edgefl_server.state_folder import state_folder
from fake_device import FakeDevice, Identity
from model_files import make_model_file
from server_process import ServerProcess, edgefl, free_port


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    server = ServerProcess(tmp_path_factory.mktemp("cli") / "state", free_port())
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.tflite"
    path.write_bytes(make_model_file())
    return path


def error_of(*arguments: object, **environment: str) -> tuple[int, dict[str, object]]:
    """Exit code and the error as JSON; nothing may be on standard output."""
    done = edgefl(*arguments, "--format", "json", **environment)
    assert done.stdout == ""
    return done.returncode, json.loads(done.stderr.splitlines()[-1])


def test_an_operator_invites_creates_watches_and_fetches(server: ServerProcess, model: Path, tmp_path: Path) -> None:
    invited = server.call("server", "invite", "--population", "people")
    text = str(invited["invitation"])
    invitation = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    assert invitation == {
        "server": server.url,
        "population": "people",
        "token": invited["token"],
        "certificate_pin": None,
        "public_key_pin": None,
    }
    devices = [FakeDevice(server.url, Identity.number(index)) for index in range(2)]
    for device in devices:
        device.enrol("people", invitation["token"])
    run = server.call("run", "create", model, "--population", "people", "--rounds", 2, "--target", 2, "--name", "mine")
    for _ in range(2):
        for device in devices:
            assert device.step(wait=20) is True
    watched = edgefl("run", "watch", run["run"], "--state", server.state)
    assert watched.returncode == 0
    assert "round    2 done" in watched.stderr
    status = server.call("run", "status", run["run"])
    assert status["state"] == "done"
    assert [entry["loss"] for entry in status["history"]] == [0.5, 0.5]  # type: ignore[attr-defined]
    assert "mine" in edgefl("run", "list", "--state", server.state).stdout
    for number, expected in ((None, 2), (0, 0), (1, 1)):
        output = tmp_path / f"{number}.npy"
        chosen = () if number is None else ("--round", number)
        fetched = server.call("run", "weights", run["run"], "-o", output, *chosen)
        assert fetched["round"] == expected
        assert np.load(output).shape == (20,)
    code, error = error_of("run", "stop", run["run"], "--state", server.state)
    assert (code, error["error"]) == (53, "RunError")


def test_a_remote_operator_uses_url_and_token(server: ServerProcess) -> None:
    token = json.loads((server.state / "operator.json").read_text())["admin_token"]
    done = edgefl("run", "list", "--server", server.url, EDGEFL_ADMIN_TOKEN=token)
    assert done.returncode == 0
    code, error = error_of("run", "list", "--server", server.url, EDGEFL_ADMIN_TOKEN="wrong")
    assert (code, error["error"]) == (41, "AuthenticationError")
    code, error = error_of("run", "list", "--server", server.url)
    assert (code, error["error"]) == (4, "InvalidSettingError")
    code, error = error_of("run", "list", "--server", server.url, "--state", server.state)
    assert (code, error["error"]) == (4, "InvalidSettingError")


def test_without_a_state_folder_it_is_that_of_the_variable_or_one_at_home(
    server: ServerProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(starting, "_LONGEST_SECONDS", 0.0)
    assert edgefl("run", "list", EDGEFL_SERVER_STATE=str(server.state)).returncode == 0
    token = json.loads((server.state / "operator.json").read_text())["admin_token"]
    remote = {"EDGEFL_ADMIN_TOKEN": token, "EDGEFL_SERVER_STATE": str(tmp_path / "none")}
    assert edgefl("run", "list", "--server", server.url, **remote).returncode == 0
    assert edgefl("run", "list", "--state", server.state, **remote).returncode == 0
    monkeypatch.delenv("EDGEFL_SERVER_STATE", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home"))
    code, error = error_of("run", "list")
    assert (code, error["error"]) == (52, "StorageError")
    assert f"{tmp_path}/home/edgefl/server/operator.json" in str(error["message"])
    (tmp_path / "home" / "edgefl").mkdir(parents=True)
    (tmp_path / "home" / "edgefl" / "server").symlink_to(server.state)
    assert edgefl("run", "list").returncode == 0
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert state_folder() == tmp_path / ".local" / "state" / "edgefl" / "server"


def test_a_server_starts_without_naming_a_folder_and_the_commands_find_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.delenv("EDGEFL_SERVER_STATE", raising=False)
    command = [sys.executable, "-m", "edgefl", "server", "start", "--port", "0", "--format", "json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        started = json.loads(process.stdout.readline())
        assert started["state"] == str(tmp_path / "edgefl" / "server")
        assert edgefl("server", "invite", "--population", "people").returncode == 0
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def test_the_line_that_created_a_run_continues_it_with_more_rounds(
    server: ServerProcess, model: Path, tmp_path: Path
) -> None:
    server.call("server", "invite", "--population", "again")
    line = ["run", "create", model, "--population", "again", "--epochs", 2, "--state", server.state]
    created = edgefl(*line, "--rounds", 5, "--target", 2, "--name", "more", "--format", "json")
    run = json.loads(created.stdout)["run"]
    done = edgefl(*line, "--rounds", "+10", "--target", 2, "--name", "more")
    assert (done.returncode, done.stdout) == (0, f"run {run}: 15 rounds of 2 outcomes from again\n")
    assert server.call("run", "status", "more")["settings"]["epochs"] == 2  # type: ignore[index]
    server.call("run", "stop", "more")
    done = edgefl("run", "create", model, "--population", "again", "--rounds", "+1", "--state", server.state)
    assert (done.returncode, done.stdout) == (0, f"run {run}: 2 rounds of 2 outcomes from again\n")
    assert server.call("run", "status", "more")["state"] == "active"

    other = tmp_path / "other.tflite"
    other.write_bytes(make_model_file(seed=5))
    for change, said in [
        ([model, "--population", "again", "--epochs", 3], "--epochs 3, and it has 2"),
        ([model, "--population", "people"], "--population people, and it has again"),
        ([other, "--population", "again"], "the model of another file"),
    ]:
        arguments = ["run", "create", *change, "--rounds", "+1", "--name", "more", "--state", server.state]
        code, error = error_of(*arguments)
        assert (code, error["error"]) == (4, "InvalidSettingError")
        assert said in str(error["message"])
    code, error = error_of("run", "create", other, "--population", "again", "--rounds", "+1", "--state", server.state)
    assert (code, error["error"]) == (53, "RunError")
    code, error = error_of(*line, "--rounds", "+0", "--name", "more")
    assert (code, error["error"]) == (4, "InvalidSettingError")
    for rounds in ("+", "ten", "1.5"):
        refused = edgefl(*line, "--rounds", rounds, "--target", 2)
        assert refused.returncode == 2
        assert "expected a whole number" in " ".join(refused.stderr.split())
    assert edgefl(*line, "--rounds", 3).returncode == 2
    server.call("run", "stop", "more")


def test_a_codec_that_suits_the_model_is_chosen_and_told_and_stays_the_one_of_the_run(
    server: ServerProcess, tmp_path: Path
) -> None:
    server.call("server", "invite", "--population", "large")
    model = tmp_path / "large.tflite"
    model.write_bytes(make_model_file([Parameter("kernel", "m/kernel", (300, 700))]))
    line = ["run", "create", model, "--population", "large", "--target", 2, "--codec", "auto", "--state", server.state]
    created = edgefl(*line, "--rounds", 5, "--format", "json")
    assert json.loads(created.stdout)["settings"]["codec"] == "rand-0.25+drive"
    told = "Codec rand-0.25+drive: a device sends 210,000 weights in 6,631 bytes, which are 840,000 as float32."
    assert told in " ".join(created.stderr.split())
    more = edgefl(*line, "--rounds", "+1", "--format", "json")
    assert json.loads(more.stdout)["settings"]["rounds"] == 6
    server.call("run", "stop", json.loads(created.stdout)["run"])


@pytest.mark.parametrize("chunked", [True, False])
def test_a_body_that_is_too_large_is_answered_over_a_real_connection(server: ServerProcess, chunked: bool) -> None:
    http = urllib3.PoolManager(retries=False, timeout=20)
    body = (bytes(40_000) for _ in range(100)) if chunked else bytes(4_000_000)
    token = server.call("server", "invite", "--population", "people")["token"]
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
    for _ in range(2):
        answer = http.request("POST", server.url + "/v1/devices", body=body, headers=headers)
        assert (answer.status, json.loads(answer.data)["error"]["code"]) == (413, "too_large")
        body = (bytes(40_000) for _ in range(100)) if chunked else body


def test_everything_in_the_state_folder_is_for_its_owner_only(server: ServerProcess) -> None:
    for path in (server.state, *server.state.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


@pytest.mark.parametrize(
    ("change", "exit_code", "kind"),
    [
        (("--rounds", 0), 4, "InvalidSettingError"),
        (("--codec", "zip"), 4, "InvalidSettingError"),
        (("--population", "a b"), 4, "InvalidSettingError"),
    ],
)
def test_a_run_with_a_wrong_setting_is_one_clear_line(
    server: ServerProcess, model: Path, change: tuple[object, ...], exit_code: int, kind: str
) -> None:
    given = ["--population", "people", "--rounds", 1, "--target", 1, *change]
    code, error = error_of("run", "create", model, *given, "--state", server.state)
    assert (code, error["error"]) == (exit_code, kind)


def test_a_file_that_is_no_model_is_one_clear_line(server: ServerProcess, tmp_path: Path) -> None:
    given = ["--population", "people", "--rounds", 1, "--target", 1, "--state", server.state]
    (tmp_path / "bad.tflite").write_bytes(b"hello")
    code, error = error_of("run", "create", tmp_path / "bad.tflite", *given)
    assert (code, error["error"]) == (20, "ModelFileError")
    code, error = error_of("run", "create", tmp_path / "missing.tflite", *given)
    assert (code, error["error"]) == (52, "StorageError")


def test_a_run_for_nobody_is_refused_or_warned_of(server: ServerProcess, model: Path) -> None:
    for population in ("people", "later"):
        server.call("server", "invite", "--population", population)
    given = ("run", "create", model, "--rounds", 1, "--target", 1, "--state", server.state, "--population")
    code, error = error_of(*given, "poeple")
    assert (code, error["error"]) == (4, "InvalidSettingError")
    assert "people" in str(error["hint"])
    done = edgefl(*given, "later")
    assert done.returncode == 0
    assert "warning: no device is enrolled in later yet" in done.stderr
    assert done.stdout.endswith(": 1 round of 1 outcome from later\n")


def test_a_run_that_does_not_exist_is_one_clear_line(server: ServerProcess, tmp_path: Path) -> None:
    for verb in ("status", "watch", "stop"):
        code, error = error_of("run", verb, "ffff", "--state", server.state)
        assert (code, error["error"]) == (53, "RunError")
    code, _ = error_of("run", "weights", "ffff", "-o", tmp_path / "w.npy", "--state", server.state)
    assert code == 53
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "url", ["kitchen.local", "kitchen.local:8470", "ftp://kitchen.local", "https://", "", "https:"]
)
def test_an_address_for_devices_that_is_no_url_is_refused_before_there_is_a_token(
    server: ServerProcess, url: str
) -> None:
    code, error = error_of("server", "invite", "--population", "people", "--state", server.state, "--url", url)
    assert (code, error["error"]) == (4, "InvalidSettingError")
    assert str(error["message"]).startswith("--url expects")
    assert "http" in str(error["hint"])


def test_an_https_address_of_a_server_without_tls_is_told(server: ServerProcess) -> None:
    url = ("--url", "https://kitchen.local")
    done = edgefl("server", "invite", "--population", "people", "--state", server.state, *url)
    assert done.returncode == 0
    assert "does not speak TLS" in done.stderr


def test_weights_go_into_an_npy_file_only(server: ServerProcess, tmp_path: Path) -> None:
    code, error = error_of("run", "weights", "ffff", "-o", tmp_path / "w.npz", "--state", server.state)
    assert (code, error["error"]) == (4, "InvalidSettingError")


def test_a_server_that_does_not_run_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgefl_server.starting._LONGEST_SECONDS", 0.2)
    code, error = error_of("run", "list", "--state", tmp_path)
    assert (code, error["error"]) == (52, "StorageError")
    url = f"http://127.0.0.1:{free_port()}"
    code, error = error_of("run", "list", "--server", url, EDGEFL_ADMIN_TOKEN="x")
    assert (code, error["error"]) == (40, "ServerUnavailableError")


def test_a_port_in_use_is_one_clear_line(server: ServerProcess, tmp_path: Path) -> None:
    code, error = error_of("server", "start", "--state", tmp_path / "s", "--port", server.port)
    assert (code, error["error"]) == (50, "ListenError")
    assert str(server.port) in str(error["message"])


def test_an_address_of_another_machine_is_one_clear_line(tmp_path: Path) -> None:
    code, error = error_of("server", "start", "--state", tmp_path / "s", "--host", "192.0.2.1", "--insecure")
    assert (code, error["error"]) == (50, "ListenError")


def test_a_time_to_keep_that_is_none_is_named_by_its_option(tmp_path: Path) -> None:
    refused = edgefl("server", "start", "--state", tmp_path / "state", "--keep-days", "nan")
    assert refused.returncode == 4
    assert "--keep-days expects 0 or more, got nan." in refused.stderr


def test_a_state_folder_in_use_is_one_clear_line(server: ServerProcess) -> None:
    code, error = error_of("server", "start", "--state", server.state, "--port", 0)
    assert (code, error["error"]) == (52, "StorageError")
    assert "Another server" in str(error["message"])


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_listening_for_others_without_tls_needs_a_word(tmp_path: Path, host: str) -> None:
    code, error = error_of("server", "start", "--state", tmp_path / "s", "--host", host, "--port", 0)
    assert (code, error["error"]) == (51, "InsecureListenError")
    assert not (tmp_path / "s").exists()


def test_with_that_word_it_listens_for_others(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path / "s", 0, ("--host", "0.0.0.0", "--insecure"))
    said = server.start()
    assert str(said["url"]).startswith("http://127.0.0.1:")
    assert server.stop()[0] == 0


def test_half_of_a_certificate_is_one_clear_line(tmp_path: Path) -> None:
    code, error = error_of("server", "start", "--state", tmp_path / "s", "--certificate", tmp_path / "c.pem")
    assert (code, error["error"]) == (4, "InvalidSettingError")


def test_a_certificate_and_a_key_that_are_swapped_are_said_to_be_so(tmp_path: Path) -> None:
    (tmp_path / "c.pem").write_text("-----BEGIN CERTIFICATE-----")
    (tmp_path / "k.pem").write_text("-----BEGIN PRIVATE KEY-----")
    swapped = ("--certificate", tmp_path / "k.pem", "--private-key", tmp_path / "c.pem")
    code, error = error_of("server", "start", "--state", tmp_path / "s", *swapped)
    assert (code, error["error"]) == (4, "InvalidSettingError")
    assert "None" not in str(error["message"])
    assert "BEGIN CERTIFICATE" in str(error["hint"])


def test_a_stop_ends_waiting_polls_and_exits_with_0(tmp_path: Path, model: Path) -> None:
    server = ServerProcess(tmp_path / "s", free_port())
    server.start()
    token = server.call("server", "invite", "--population", "people")["token"]
    server.call("run", "create", model, "--population", "people", "--rounds", 1, "--target", 1)
    for index in range(2):
        FakeDevice(server.url, Identity.number(index)).enrol("people", str(token))
    busy, waiting = (Identity.number(index).authorization for index in range(2))
    http = urllib3.PoolManager(retries=False)
    http.request("POST", f"{server.url}/v1/tasks/next", json={"wait": 0}, headers=busy)
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        body = b'{"wait": 30}'
        head = f"POST /v1/tasks/next HTTP/1.1\r\nHost: x\r\nAuthorization: {waiting['Authorization']}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        # A later request is answered: the poll before it has arrived.
        http.request("POST", f"{server.url}/v1/tasks/next", json={"wait": 0}, headers=busy)
        code, errors = server.stop()
        answer = connection.recv(1000)
    assert answer.startswith(b"HTTP/1.1 204")
    assert code == 0
    assert "Traceback" not in errors


def test_a_restarted_server_knows_its_runs_devices_and_operator(tmp_path: Path, model: Path) -> None:
    server = ServerProcess(tmp_path / "s", free_port())
    server.start()
    token = server.call("server", "invite", "--population", "people")["token"]
    device = FakeDevice(server.url, Identity.number(0))
    device.enrol("people", str(token))
    run = server.call("run", "create", model, "--population", "people", "--rounds", 1, "--target", 1)["run"]
    before = (server.state / "operator.json").read_text()
    assert server.stop()[0] == 0
    server.start()
    assert (server.state / "operator.json").read_text() == before
    assert device.step() is True
    edgefl("run", "watch", str(run), "--state", server.state)
    assert server.call("run", "status", str(run))["state"] == "done"
    server.stop()


def test_a_full_disk_is_507_for_devices_and_nothing_is_half_written(tmp_path: Path) -> None:
    # A limit on the size of files stands for the full disk: every write beyond it fails as one does.
    parameters_file = tmp_path / "model.tflite"
    parameters_file.write_bytes(make_model_file([Parameter("w", "m/w", (500_000,))]))
    state = tmp_path / "s"
    server = ServerProcess(state, free_port())
    server.start()
    token = server.call("server", "invite", "--population", "people")["token"]
    device = FakeDevice(server.url, Identity.number(0), statistic_size=0)
    device.enrol("people", str(token))
    server.call("run", "create", parameters_file, "--population", "people", "--rounds", 1, "--target", 1)
    assert server.process is not None
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (1_500_000, resource.RLIM_INFINITY))
    http = urllib3.PoolManager(retries=False)
    headers = {**Identity.number(0).authorization, "Content-Type": "application/json"}
    answers = []

    def once(method: str, path: str, body: bytes | None = None, headers_given: object = None) -> object:
        answer = http.request(method, server.url + path, body=body, headers=headers)
        answers.append(answer)
        if answer.status == 507:
            resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
            assert list((state / "outcomes").iterdir()) == []
            return http.request(method, server.url + path, body=body, headers=headers)
        return answer

    device.call = once  # type: ignore[assignment,method-assign]
    assert device.step() is True
    refused = [answer for answer in answers if answer.status == 507]
    assert json.loads(refused[0].data)["error"]["code"] == "storage_full"
    server.stop()


def test_help_and_wrong_options_name_the_options(tmp_path: Path) -> None:
    done = edgefl("run", "create", "--help")
    assert done.returncode == 0
    for option in ("--population", "--over-selection", "--deadline-seconds", "--clip-norm", "--format"):
        assert option in done.stdout
    assert edgefl("server", "invite").returncode == 2


def test_tls_serves_devices_and_operators_that_pin_the_certificate(tmp_path: Path) -> None:
    certificate, key = tmp_path / "c.pem", tmp_path / "k.pem"
    request = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=edgefl"
    made = subprocess.run(
        ["openssl", *request.split(), "-keyout", key, "-out", certificate], capture_output=True, check=False
    )
    if made.returncode != 0:
        pytest.skip("openssl is not installed")
    options = ("--host", "0.0.0.0", "--certificate", str(certificate), "--private-key", str(key))
    server = ServerProcess(tmp_path / "s", 0, options)
    said = server.start()
    invited = server.call("server", "invite", "--population", "people")
    assert invited["certificate_pin"] == said["certificate_pin"]
    assert invited["public_key_pin"] == said["public_key_pin"]
    invitation = Invitation.parse(str(invited["invitation"]))
    assert (invitation.certificate_pin, invitation.public_key_pin) == (said["certificate_pin"], said["public_key_pin"])
    pinned = urllib3.PoolManager(cert_reqs="CERT_NONE", assert_fingerprint=str(said["certificate_pin"]), retries=False)
    assert pinned.request("GET", f"{said['url']}/openapi.json").status == 200
    other = urllib3.PoolManager(cert_reqs="CERT_NONE", assert_fingerprint="0" * 64, retries=False)
    with pytest.raises(urllib3.exceptions.SSLError):
        other.request("GET", f"{said['url']}/openapi.json")
    for pool in (pinned, other):
        pool.clear()
    url, token = str(said["url"]), json.loads((server.state / "operator.json").read_text())["admin_token"]
    pins = {"EDGEFL_ADMIN_TOKEN": token, "EDGEFL_CERTIFICATE_PIN": str(said["certificate_pin"])}
    assert edgefl("run", "list", "--server", url, **pins).returncode == 0
    for pin in ("", "0" * 64):
        code, error = error_of("run", "list", "--server", url, **{**pins, "EDGEFL_CERTIFICATE_PIN": pin})
        assert (code, error["error"]) == (41, "AuthenticationError")
        assert "Set EDGEFL_CERTIFICATE_PIN to the certificate_pin in operator.json" in str(error["hint"])
    plain = url.replace("https://", "http://")
    code, error = error_of("run", "list", "--server", plain, EDGEFL_ADMIN_TOKEN=token)
    assert (code, error["hint"]) == (40, f"Perhaps it speaks TLS: try {url}.")
    invite = ("server", "invite", "--population", "people", "--state", server.state)
    code, error = error_of(*invite, "--url", "http://kitchen.local:8470")
    assert (code, error["error"]) == (4, "InvalidSettingError")
    assert "certificate" in str(error["message"])
    assert server.stop()[0] == 0


def test_interrupting_from_the_keyboard_stops_cleanly(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path / "s", 0)
    server.start()
    assert server.process is not None
    server.process.send_signal(signal.SIGINT)
    assert server.process.wait(30) == 0
    server.process.communicate()


@pytest.fixture
def stopped(tmp_path: Path) -> ServerProcess:
    """A server that has accepted an outcome and does not run."""
    server = ServerProcess(tmp_path / "state", free_port())
    server.start()
    token = server.call("server", "invite", "--population", "people")["token"]
    device = FakeDevice(server.url, Identity.number(0))
    device.enrol("people", str(token))
    (tmp_path / "model.tflite").write_bytes(make_model_file())
    server.call("run", "create", tmp_path / "model.tflite", "--population", "people", "--rounds", 1, "--target", 2)
    assert device.step() is True
    server.stop()
    return server


def test_a_start_without_its_database_is_one_clear_line_and_deletes_no_outcome(stopped: ServerProcess) -> None:
    before = sorted((stopped.state / "outcomes").iterdir())
    assert len(before) == 1
    (stopped.state / "server.sqlite").unlink()
    for _ in range(2):
        code, error = error_of("server", "start", "--state", stopped.state, "--port", stopped.port)
        assert (code, error["error"]) == (52, "StorageError")
        assert "server.sqlite is missing" in str(error["message"])
    assert sorted((stopped.state / "outcomes").iterdir()) == before
    assert not (stopped.state / "server.sqlite").exists()


def test_a_standard_output_that_is_full_or_closed_ends_no_server(stopped: ServerProcess) -> None:
    command = [sys.executable, "-m", "edgefl.cli.main", "server", "start", "--state", str(stopped.state)]
    command += ["--port", str(stopped.port)]
    for end in ("> /dev/full", ">&-"):
        shell = ["sh", "-c", f'exec "$@" {end}', "sh", *command]
        with subprocess.Popen(shell, stderr=subprocess.PIPE, text=True) as process:
            try:
                assert "runs" in stopped.call("run", "list")
            finally:
                process.terminate()
                said = process.communicate()[1]
        assert (process.returncode, "Traceback" in said) == (0, False)


def test_a_start_with_an_empty_token_is_refused(stopped: ServerProcess) -> None:
    path = stopped.state / "operator.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "admin_token": ""}))
    code, error = error_of("server", "start", "--state", stopped.state, "--port", stopped.port)
    assert (code, error["error"]) == (4, "InvalidSettingError")
    assert "makes a new token" in str(error["hint"])


@pytest.mark.parametrize("text", ["", "{}", '{"url": "u", "admin_token": "short"}', None])
def test_a_start_with_a_damaged_operator_file_touches_nothing(stopped: ServerProcess, text: str | None) -> None:
    path = stopped.state / "operator.json"
    if text is None:
        path.unlink()
        path.mkdir()
    else:
        path.write_text(text)
    (stopped.state / "outcomes" / ("0" * 64)).write_bytes(b"unknown")

    def content() -> dict[str, bytes]:
        return {str(each): each.read_bytes() for each in stopped.state.rglob("*") if each.is_file()}

    before = content()
    code, error = error_of("server", "start", "--state", stopped.state, "--port", stopped.port)
    assert code in (4, 52)
    assert "operator.json" in str(error["message"])
    assert content() == before


def test_what_operators_need_is_written_only_when_it_changes_and_an_old_one_does_on_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*arguments: object, **settings: object) -> None:
        raise StorageError("Could not write operator.json: No space left on device.", full=True)

    first = OperatorFile("http://127.0.0.1:1", "a-token-that-is-long-enough-for-an-operator")
    with monkeypatch.context() as patched:
        patched.setattr("edgefl_server.operator_file.write_text", full)
        with pytest.raises(StorageError):
            start_verb._tell_operators(first, tmp_path)
    start_verb._tell_operators(first, tmp_path)
    before = (tmp_path / "operator.json").stat()
    start_verb._tell_operators(first, tmp_path)
    assert (tmp_path / "operator.json").stat().st_ino == before.st_ino
    monkeypatch.setattr("edgefl_server.operator_file.write_text", full)
    start_verb._tell_operators(replace(first, url="http://127.0.0.1:2"), tmp_path)
    assert "No space left" in capsys.readouterr().err
    assert OperatorFile.read(tmp_path) == first


def test_a_start_lists_what_the_database_does_not_know_and_keeps_it(stopped: ServerProcess) -> None:
    names = [f"{index:064x}" for index in range(3)]
    for name in names:
        (stopped.state / "outcomes" / name).write_bytes(b"unknown")
    stopped.start()
    _, said = stopped.stop()
    assert all(name in said for name in names)
    assert "3 files that the database does not know" in said
    assert sorted(path.name for path in (stopped.state / "orphans").iterdir()) == names
    assert len(list((stopped.state / "outcomes").iterdir())) == 1


def test_damaged_weights_are_not_handed_to_the_operator_as_if_they_were_good(
    server: ServerProcess, model: Path, tmp_path: Path
) -> None:
    server.call("server", "invite", "--population", "nobody")
    run = server.call("run", "create", model, "--population", "nobody", "--rounds", 1, "--target", 1)["run"]
    digest = server.call("run", "status", run)["initial_weights_hash"]
    server.call("run", "stop", run)
    path = server.state / "weights" / str(digest)
    kept = path.read_bytes()
    path.write_bytes(b"x" * len(kept))
    arguments = ("run", "weights", run, "-o", tmp_path / "w.npy", "--state", server.state)
    assert error_of(*arguments)[1]["error"] == "HashMismatchError"
    assert not (tmp_path / "w.npy").exists()
    path.write_bytes(kept)
    assert edgefl(*arguments).returncode == 0
