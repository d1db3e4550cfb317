"""A server changes its certificate: devices that were told beforehand go on, with certificates that openssl made."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import edgefl
from edgefl.invitation import Invitation
from edgefl_device_runtime.agent import Settings
from server_process import ServerProcess, free_port

QUICK = Settings(first_retry=0.02, longest_retry=0.05, poll_wait=0.0)


class OverError(Exception):
    """The test has seen enough of an attempt that would go on for ever."""


@pytest.fixture
def make_certificate(tmp_path: Path) -> Callable[[str], tuple[str, ...]]:
    """Makes a certificate with a key of its own, and the options that serve it."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificates")

    def make(name: str) -> tuple[str, ...]:
        key, certificate = tmp_path / f"{name}.key", tmp_path / f"{name}.pem"
        request = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=edgefl"
        command = ["openssl", *request.split(), "-keyout", str(key), "-out", str(certificate)]
        subprocess.run(command, capture_output=True, check=True)
        return "--certificate", str(certificate), "--private-key", str(key)

    return make


def started(server: ServerProcess, *options: str) -> dict[str, object]:
    server.stop()
    server.options = options
    return server.start()


def device(folder: Path, invitation: Invitation) -> edgefl.Device:
    data = folder.parent / "data.npz"
    np.savez(data, x=np.zeros((8, 4), np.float32), y=np.zeros(8, np.int64))

    def load(path: Path) -> object:
        raise AssertionError("there is no work")

    return edgefl.Device(
        invitation.server,
        invitation.population,
        data,
        folder,
        token=invitation.token,
        certificate_pin=invitation.certificate_pin,
        public_key_pin=invitation.public_key_pin,
        next_pins=(invitation.next_certificate_pin, invitation.next_public_key_pin),
        settings=QUICK,
        load_trainer=load,  # type: ignore[arg-type]
    )


def invited(server: ServerProcess) -> Invitation:
    return Invitation.parse(str(server.call("server", "invite", "--population", "people")["invitation"]))


def polls(mine: edgefl.Device) -> bool:
    """Whether the device reaches its server; False: it sees another certificate."""

    def give_up(seconds: float) -> None:
        raise OverError

    mine._connection._sleep = give_up
    try:
        mine.step()
    except OverError:
        assert "another certificate" in mine._connection.contact.trouble
        return False
    return True


def test_a_device_that_was_told_goes_on_after_the_change_and_one_that_was_away_needs_an_invitation(
    tmp_path: Path, make_certificate: Callable[[str], tuple[str, ...]]
) -> None:
    old, new, later = map(make_certificate, ("old", "new", "later"))
    server = ServerProcess(tmp_path / "state", free_port())
    try:
        first = started(server, *old)
        invitation = invited(server)
        told, away = device(tmp_path / "told", invitation), device(tmp_path / "away", invitation)
        assert polls(told)
        assert polls(away)
        away.close()

        started(server, *old, "--next-certificate", new[1])
        assert polls(told)  # and learns what comes
        both = invited(server)
        assert (both.certificate_pin, both.next_certificate_pin) == (
            first["certificate_pin"],
            both.next_certificate_pin,
        )
        late = device(tmp_path / "late", both)  # set up with an invitation of these days, and first started later
        told.close()

        second = started(server, *new)
        assert second["certificate_pin"] == both.next_certificate_pin
        told = device(tmp_path / "told", invitation)  # started again with the same line as ever
        assert polls(told)
        assert polls(late)
        away = device(tmp_path / "away", invitation)
        assert not polls(away)
        away.close()
        away = device(tmp_path / "away", invited(server))
        assert polls(away)

        # What is over is not accepted any more, and the next change is announced like the first.
        kept = json.loads((tmp_path / "told" / "pins.json").read_text())["trusted"]
        assert kept == [[second["certificate_pin"], second["public_key_pin"]]]
        started(server, *new, "--next-certificate", later[1])
        assert polls(told)
        assert polls(away)
        started(server, *later)
        assert [polls(each) for each in (told, away, late)] == [True, True, False]
        started(server, *old)
        assert not polls(told)
        for each in (told, away, late):
            each.close()
    finally:
        server.stop()


def test_a_next_certificate_that_is_none_or_stands_alone_is_one_clear_error(
    tmp_path: Path, make_certificate: Callable[[str], tuple[str, ...]]
) -> None:
    from server_process import edgefl as command

    old = make_certificate("old")
    (tmp_path / "none.pem").write_text("nothing")
    start = ("server", "start", "--state", tmp_path / "state", "--port", "0")
    alone = command(*start, "--next-certificate", old[1])
    assert (alone.returncode, "--certificate beside it" in alone.stderr) == (4, True)
    none = command(*start, *old, "--next-certificate", tmp_path / "none.pem")
    assert (none.returncode, "no certificate in PEM" in none.stderr) == (52, True)
