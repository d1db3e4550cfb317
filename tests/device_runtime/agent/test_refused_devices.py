"""A device that is blocked, or has used up what it may send: it says so, waits as it is told, and comes back."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgefl.hashing import sha256
from edgefl_device_runtime.agent.connection import Connection
from edgefl_device_runtime.agent.replies import NotReachedError


@pytest.fixture
def once(rig):
    """A device that has taken part before."""
    device = rig.device()
    assert device.step() is None
    return device


def test_a_blocked_device_says_so_rests_as_it_is_told_and_works_again_once_it_may(rig, fault, once) -> None:
    rig.server.faults = [fault("POST", "/next", 403, code="blocked", headers={"Retry-After": "432"})]
    assert once.step() is None
    assert once._rest == 432
    assert "refused to say whether there is work: expected this, got that" in rig.lines[-1]
    asked = len(rig.server.requests)
    rig.server.tasks = [rig.task()]
    assert once.step().result == "accepted"
    assert "/v1/devices" not in [each.path for each in rig.server.requests[asked:]]


def test_a_device_that_is_blocked_in_the_middle_drops_its_task_and_goes_on(rig, fault, once) -> None:
    rig.server.tasks = [rig.task()]
    rig.server.faults = [fault("PUT", "/outcome", 403, code="blocked", headers={"Retry-After": "300"})]
    assert once.step().result == "blocked"
    assert once._rest == 300
    assert not once._state.has_outcome()


@pytest.mark.parametrize("code", ["quota_used_up", "too_many"])
def test_a_device_that_is_sent_away_for_a_day_is_told_why_and_asks_when_the_time_has_come(
    server, fault, quick, code: str
) -> None:
    rests: list[float] = []
    lines: list[str] = []
    server.devices["d"] = sha256(b"s")
    server.faults = [fault("POST", "/next", 429, code=code, headers={"Retry-After": "86000"})]
    settings = replace(quick, longest_rest=90_000)
    connection = Connection(server.url, sleep=rests.append, report=lines.append, settings=settings)
    connection.authorization = "Bearer d.s"
    with pytest.raises(NotReachedError) as error:
        connection.attempt("POST", "/v1/tasks/next")
    assert error.value.retry_after == 86_000
    server.faults = [fault("POST", "/next", 429, code=code, headers={"Retry-After": "86000"})]
    connection.call("POST", "/v1/tasks/next", shows=lambda reply: reply.status == 204)
    assert rests == [86_000]
    assert "asks for patience: expected this, got that" in lines[0]
