"""How long a poll waits, over ways that bear it for so long and no longer."""

from __future__ import annotations

import pytest

from edgefl_device_runtime.agent.long_poll import LongPoll
from edgefl_device_runtime.agent.replies import NotReachedError, Reply


class Way:
    """A connection that is cut after some seconds on which nothing was said; each poll that is not takes its wait."""

    def __init__(self, bears: float) -> None:
        self.bears, self.now, self.away = bears, 0.0, False
        self.waits: list[float] = []

    def attempt_json(self, method, path, document, *, wait, **_):
        assert (method, path) == ("POST", "/v1/tasks/next")
        assert document["wait"] == wait
        self.waits.append(wait)
        self.now += min(wait, self.bears)
        if self.away or wait > self.bears:
            raise NotReachedError("away", "It cannot be reached.")
        return Reply(204, {}, b"")

    def polls(self, count: int) -> list[float]:
        poll = LongPoll(self, 100, clock=lambda: self.now)
        for _ in range(count):
            assert poll.ask({}, 25.0).status == 204
        return self.waits


def test_a_way_that_bears_it_is_asked_for_as_long_as_was_meant():
    assert Way(bears=60).polls(3) == [25.0, 25.0, 25.0]


def test_a_poll_that_was_cut_is_asked_again_at_once_and_the_next_waits_for_less_than_was_borne():
    assert Way(bears=20).polls(2) == [25.0, 0.0, 16.0]


def test_what_the_way_bears_is_found_out_anew():
    waits = Way(bears=20).polls(3)
    assert waits[3] == pytest.approx(24.0)
    assert max(waits) == 25.0


@pytest.mark.parametrize("bears", [0.0, 0.2, 3.0, 20.0, 24.9])
def test_whatever_a_way_bears_every_poll_is_answered(bears):
    waits = Way(bears).polls(50)
    assert sum(wait <= bears for wait in waits) == 50


def test_a_server_that_is_away_is_not_reached_and_answers_polls_of_any_length_when_it_is_back():
    way = Way(bears=60)
    poll = LongPoll(way, 100, clock=lambda: way.now)
    way.away = True
    with pytest.raises(NotReachedError):
        poll.ask({}, 25.0)
    assert way.waits == [25.0, 0.0]
    way.away = False
    for _ in range(5):
        poll.ask({}, 25.0)
    assert way.waits[-1] == 25.0


def test_somebody_else_who_answers_is_told_at_once():
    way = Way(bears=60)

    def attempt_json(*_, **__):
        way.waits.append(0.0)
        raise NotReachedError("portal 302", "Somebody else answers.")

    way.attempt_json = attempt_json
    with pytest.raises(NotReachedError, match="Somebody else"):
        LongPoll(way, 100, clock=lambda: way.now).ask({}, 25.0)
    assert way.waits == [0.0]
