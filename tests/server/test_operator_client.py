from __future__ import annotations

import stat
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from edgefl.errors import InvalidSettingError, ProtocolError, RunError, ServerUnavailableError, StorageError
from edgefl_server.operator_client import OperatorClient, run_path
from edgefl_server.operator_file import OperatorFile

BODIES = {"object": b'{"portal": "hotel"}', "list": b"[]", "word": b'"login"', "deep": b"[" * 100_000}


@pytest.fixture
def other_server() -> Iterator[str]:
    """Something that answers, but is no edgefl server."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(int(self.path.rpartition("/")[2]))
            self.end_headers()
            self.wfile.write(BODIES.get(self.path.strip("/").partition("/")[0], b"<html>"))

        def log_message(self, *arguments: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("status", [200, 404, 500])
def test_another_kind_of_server_is_a_protocol_error(other_server: str, status: int) -> None:
    with pytest.raises(ProtocolError):
        OperatorClient(OperatorFile(other_server, "x")).get(f"/{status}")


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_server_that_is_away_behind_a_proxy_is_not_reached(other_server: str, status: int) -> None:
    with pytest.raises(ServerUnavailableError, match=str(status)):
        OperatorClient(OperatorFile(other_server, "x")).get(f"/{status}")


@pytest.mark.parametrize("kind", BODIES)
def test_json_of_another_kind_is_a_protocol_error(other_server: str, kind: str) -> None:
    client = OperatorClient(OperatorFile(other_server, "x"))
    for status in (200, 404):
        with pytest.raises(ProtocolError):
            client.get(f"/{kind}/{status}")
    with pytest.raises(ProtocolError, match="no weights"):
        client.download(f"/{kind}/200")


@pytest.mark.parametrize("run", ["", ".", "..", "../runs", "a/b", "a?b", "a#b", "a b", "%2e", "é", "x" * 65, "a\n"])
def test_what_can_be_no_run_is_not_asked_for(run: str) -> None:
    with pytest.raises(RunError, match="There is no run") as refused:
        run_path(run, "stop")
    assert "\n" not in str(refused.value)


def test_a_runs_path_is_its_id_or_name() -> None:
    assert run_path("first-1.2_x") == "/v1/runs/first-1.2_x"
    assert run_path("3f2a90cc", "weights") == "/v1/runs/3f2a90cc/weights"


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://"])
def test_an_address_without_a_server_is_one_clear_error(url: str) -> None:
    with pytest.raises(ServerUnavailableError):
        OperatorClient(OperatorFile(url, "x")).get("/v1/runs")


def test_tls_where_there_is_none_is_said_to_be_that(other_server: str) -> None:
    url = other_server.replace("http://", "https://")
    with pytest.raises(ServerUnavailableError, match=f"try {other_server}"):
        OperatorClient(OperatorFile(url, "x")).get("/200")


@pytest.mark.parametrize("url", ["nonsense", "ftp://x", ""])
def test_a_url_that_is_not_http_is_refused(url: str) -> None:
    with pytest.raises(InvalidSettingError, match="http://"):
        OperatorClient(OperatorFile(url, "x"))


def test_state_or_server_but_not_both(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettingError, match="one of --state and --server"):
        OperatorClient.find(tmp_path, "http://x")


def test_without_either_it_is_the_folder_that_a_server_takes_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = OperatorFile("http://127.0.0.1:1", "secret-token", None)
    file.write(tmp_path)
    monkeypatch.setenv("EDGEFL_SERVER_STATE", str(tmp_path))
    assert OperatorClient.find(None, None).url == file.url


def test_the_operators_file_survives_a_round_trip_and_hides_its_token(tmp_path: Path) -> None:
    file = OperatorFile("https://127.0.0.1:1", "secret-token", "ab" * 32)
    file.write(tmp_path)
    assert OperatorFile.read(tmp_path) == file
    assert OperatorFile.token(tmp_path) == "secret-token"
    assert stat.S_IMODE((tmp_path / "operator.json").stat().st_mode) == 0o600
    assert "secret-token" not in repr(file)


def test_tokens_of_two_servers_differ(tmp_path: Path) -> None:
    assert OperatorFile.token(tmp_path / "a") != OperatorFile.token(tmp_path / "b")


def test_a_damaged_operators_file_is_one_clear_error(tmp_path: Path) -> None:
    for text in ("", "[]", "{}", '{"url": "x"}'):
        (tmp_path / "operator.json").write_text(text)
        with pytest.raises(StorageError, match="damaged"):
            OperatorFile.read(tmp_path)


@pytest.mark.parametrize("token", ["", "  \n", "short", "with a space in it", "with\x00null-inside"])
def test_an_operators_file_without_a_token_that_protects_is_refused_with_what_to_do(tmp_path: Path, token: str) -> None:
    OperatorFile("http://127.0.0.1:1", token).write(tmp_path)
    for call in (OperatorFile.read, OperatorFile.token):
        with pytest.raises(InvalidSettingError, match="at least 12") as refused:
            call(tmp_path)
        assert "Delete the file and start the server again" in str(refused.value)
        assert token.strip() not in str(refused.value) or not token.strip()


@pytest.mark.parametrize("pin", ["0000", "g" * 64, "ab" * 31, "ab" * 33, " "])
def test_a_pin_that_is_none_is_said_to_be_none_wherever_it_comes_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pin: str
) -> None:
    monkeypatch.setenv("EDGEFL_ADMIN_TOKEN", "operators-token")
    monkeypatch.setenv("EDGEFL_CERTIFICATE_PIN", pin)
    with pytest.raises(InvalidSettingError, match="64 hexadecimal digits in EDGEFL_CERTIFICATE_PIN"):
        OperatorClient.find(None, "https://127.0.0.1:1")
    OperatorFile("https://127.0.0.1:1", "operators-token", pin).write(tmp_path)
    with pytest.raises(InvalidSettingError, match=r"64 hexadecimal digits in .*operator\.json"):
        OperatorClient.find(tmp_path, None)


def test_a_pin_is_taken_as_openssl_prints_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEFL_ADMIN_TOKEN", " operators-token\n")
    monkeypatch.setenv("EDGEFL_CERTIFICATE_PIN", "sha256:" + ":".join(["AB"] * 32))
    assert OperatorClient.find(None, "https://127.0.0.1:1").certificate_pin == "ab" * 32


def test_a_token_in_the_environment_that_no_header_can_carry_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEFL_ADMIN_TOKEN", "operators\ntoken: forged")
    with pytest.raises(InvalidSettingError, match="EDGEFL_ADMIN_TOKEN"):
        OperatorClient.find(None, "http://127.0.0.1:1")


def test_a_pin_for_a_server_without_a_certificate_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEFL_ADMIN_TOKEN", "operators-token")
    monkeypatch.setenv("EDGEFL_CERTIFICATE_PIN", "ab" * 32)
    with pytest.raises(InvalidSettingError, match="https://"):
        OperatorClient.find(None, "http://127.0.0.1:1")
