"""What a device tells of the server, of sending, and of small numbers."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from edgefl_device_runtime.agent.state import StateFolder
from edgefl_device_runtime.agent.status import status_of, status_text
from edgefl_device_runtime.agent.summary import TaskReport


def status(rig):
    return status_of(StateFolder(rig.folder / "state"))


def test_a_device_waits_for_work_only_once_the_server_has_answered(rig):
    rig.device().step()
    device, done = rig.device(token=None), []  # which does not enrol again
    doing = device._journal.doing
    device._journal.doing = lambda what, task=None: (done.append(what), doing(what, task))
    device.step()
    device.step()
    assert done == ["asking for work", "waiting for work"]


def test_the_status_of_a_device_that_was_not_taken_in_yet_says_so(rig):
    rig.device()
    assert "server: not enrolled yet" in status_text(status(rig))
    assert "None" not in status_text(status(rig))


@pytest.mark.parametrize("moment", ["soon", 1e300, -1e300, [], {}])
def test_a_moment_that_no_calendar_has_is_left_out_of_the_status(rig, moment):
    rig.device()
    damaged = status(rig) | {"next_try": moment, "last_contact": moment, "as_of": moment}
    assert "next try" not in status_text(damaged)
    assert "last contact: none" in status_text(damaged)
    assert "next try: " in status_text(damaged | {"next_try": 1.0})


def test_an_upload_that_takes_long_tells_its_share(rig, quick):
    rig.server.tasks = [rig.task()]
    device = rig.device(settings=replace(quick, progress_pause=0.0, send_piece=100))
    shares, sent = [], device._journal.sent
    device._journal.sent = lambda share: (shares.append(share), sent(share))
    device.step()
    size = len(rig.server.outcomes["r-1-d"][-1])
    assert shares == [start / size for start in range(0, size, 100)]
    told = [line for line in rig.lines if "are sent" in line]
    assert told[1] == f"Round 1 of r: {100 * 100 / size:.0f} % of {size / 1000:.1f} kB are sent"


def test_the_status_tells_how_much_is_sent(rig, quick):
    device, seen = rig.device(settings=replace(quick, status_pause=0.01)), threading.Event()
    device._journal.doing("sending what came out")
    device._journal.sent(0.25)
    for _ in range(500):
        if "sending what came out, 25 % (as of" in status_text(status(rig)):
            break
        seen.wait(0.01)
    assert "sending what came out, 25 % (as of" in status_text(status(rig))


def test_a_tls_server_behind_an_address_of_http_is_guessed_as_long_as_nothing_was_heard(rig, fault):
    rig.server.faults = [fault("POST", "/devices", "drop"), fault("POST", "/next", "drop")]
    rig.device().step()
    first, later = [line for line in rig.lines if "cannot be reached" in line]
    assert "(it ended the connection without an answer; perhaps it speaks TLS: try https://)" in first
    assert "TLS" not in later


def test_one_is_not_plural():
    assert "1 example, 1 step, " in str(TaskReport("t", examples=1, steps=1))
    assert "0 examples, 2 steps, " in str(TaskReport("t", examples=0, steps=2))
