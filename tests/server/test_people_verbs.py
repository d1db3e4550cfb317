from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from edgefl_server.durations import duration
from edgefl_server.people_text import detail, table
from fake_device import FakeDevice, Identity
from server_process import ServerProcess, edgefl, free_port


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    server = ServerProcess(tmp_path_factory.mktemp("people") / "state", free_port())
    server.start()
    yield server
    server.stop()


def test_an_operator_works_with_a_key_of_its_own_until_it_is_revoked(server: ServerProcess) -> None:
    added = edgefl("server", "operators", "add", "eve\n<i>", "--role", "viewer", "--state", server.state)
    assert added.returncode == 0
    key = added.stdout.split()[1]
    assert f"signs in at {server.url}," in added.stdout
    assert f"Other machines cannot use {server.url}" in added.stderr
    for variable in ("EDGEFL_OPERATOR_KEY", "EDGEFL_ADMIN_TOKEN"):
        assert edgefl("run", "list", "--server", server.url, **{variable: key}).returncode == 0
    refused = edgefl(
        "server", "invite", "--population", "p", "--server", server.url, "--format", "json", EDGEFL_OPERATOR_KEY=key
    )
    assert refused.returncode == 41
    assert "needs the role operator" in json.loads(refused.stderr.splitlines()[-1])["message"]
    listed = edgefl("server", "operators", "list", "--state", server.state).stdout.splitlines()
    assert len(listed) == 2
    assert listed[1].startswith("eve?<i>  viewer  active")
    server.call("server", "operators", "revoke", "eve\n<i>")
    revoked = edgefl("run", "list", "--server", server.url, "--format", "json", EDGEFL_OPERATOR_KEY=key)
    assert revoked.returncode == 41
    assert "was revoked" in json.loads(revoked.stderr.splitlines()[-1])["message"]
    newest = edgefl("server", "audit", "--limit", "1", "--state", server.state).stdout.splitlines()
    assert re.fullmatch(r"older ones: --before \d+", newest[-1])
    told = edgefl("server", "audit", "--since", "1h", "--limit", "5", "--state", server.state).stdout.splitlines()
    assert len(told) == 3
    assert re.search(r"admin +admin +operators.revoke +eve\?<i>$", told[1])
    assert [each["act"] for each in server.call("server", "audit")["audit"]] == [  # type: ignore[attr-defined]
        "operators.revoke",
        "operators.create",
    ]


@pytest.mark.parametrize(
    ("text", "seconds"), [("7d", 604800), ("90m", 5400), ("1.5h", 5400), ("2w", 1209600), ("5s", 5)]
)
def test_a_span_of_time_is_a_number_and_a_unit(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "7", "d", "0d", "-1d", "1y", "1 d", "1e3s", "9" * 30 + "d"])
def test_what_is_no_span_of_time_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        duration(text)


def test_details_of_the_audit_log_are_words_and_whole_numbers() -> None:
    said = {"role": "viewer", "expires_seconds": 7776000.0, "label": "", "uses": None, "tags": [], "kinds": {"role": 2}}
    assert detail(said) == "role viewer, expires seconds 7776000, tags -, kinds role: 2"


def test_a_cell_of_a_table_begins_no_line() -> None:
    assert table(("name", "n"), [("a\nb\x1b[2J", "1"), ("c", "2")]).splitlines() == [
        "name     n",
        "a?b?[2J  1",
        "c        2",
    ]


def test_an_invitation_is_made_listed_and_revoked(server: ServerProcess) -> None:
    made = server.call("server", "invite", "--population", "hall", "--uses", 3, "--expires", "7d", "--label", "x\ny")
    assert (made["uses"], made["expires_seconds"], made["label"]) == (3, 604800, "x\ny")
    (listed,) = server.call("server", "invitations", "list")["invitations"]  # type: ignore[misc]
    line = edgefl("server", "invitations", "list", "--state", server.state).stdout.splitlines()[1]
    assert re.match(rf"{listed['id']}  hall +open +0 of 3 .* admin  x\?y$", line)
    server.call("server", "invitations", "revoke", listed["id"])
    (listed,) = server.call("server", "invitations", "list")["invitations"]  # type: ignore[misc]
    assert listed["state"] == "revoked"
    assert edgefl("server", "invitations", "revoke", "../runs", "--state", server.state).returncode == 4


def test_devices_are_listed_shown_tagged_limited_blocked_and_removed(server: ServerProcess) -> None:
    token = str(server.call("server", "invite", "--population", "people")["token"])
    device = FakeDevice(server.url, Identity.number(0))
    device.enrol("people", token)
    assert device.step() is None
    me = Identity.number(0).device
    server.call("server", "devices", "tag", me[:8], "hall", "b-2")
    server.call("server", "devices", "quota", me, "--outcomes", 5)
    assert server.call("server", "devices", "block", me)["state"] == "blocked"
    listed = edgefl("server", "devices", "list", "--tag", "hall", "--state", server.state).stdout.splitlines()
    assert re.match(rf"{me[:12]}  people +blocked +20\d\d-.* 0 +b-2 hall$", listed[1])
    shown = edgefl("server", "devices", "show", me, "--state", server.state).stdout
    assert re.search(r"^quota +5 outcomes a day$", shown, re.MULTILINE)
    assert server.call("server", "devices", "unblock", me)["state"] == "active"
    gone = edgefl("server", "devices", "remove", me, "--state", server.state)
    assert "no round merges now: 0" in gone.stdout
    unknown = edgefl("server", "devices", "show", me, "--state", server.state)
    assert (unknown.returncode, "was removed" in unknown.stderr) == (4, True)


def test_a_server_that_runs_is_backed_up_checked_and_restored(server: ServerProcess, tmp_path: Path) -> None:
    made = server.call("server", "backup", tmp_path / "copy")
    assert (made["missing"], made["damaged"]) == ([], [])
    assert server.call("server", "check")["damaged"] == []
    restored = edgefl("server", "restore", tmp_path / "copy", "--state", tmp_path / "again")
    assert (restored.returncode, "goes on from there" in restored.stdout) == (0, True)
    again = ServerProcess(tmp_path / "again", free_port())
    again.start()
    try:
        assert again.call("server", "devices", "list") == server.call("server", "devices", "list")
        assert again.call("server", "operators", "list") == server.call("server", "operators", "list")
    finally:
        again.stop()
    refused = edgefl("server", "backup", tmp_path / "copy", "--state", server.state)
    assert (refused.returncode, "not empty" in refused.stderr) == (52, True)
