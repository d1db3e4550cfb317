"""The tickets of engines with workers: nothing is kept longer than needed, and what a lost worker had is done again."""

from __future__ import annotations

import pytest

from edgefl_simulation.engines.tickets import Tickets


class Told:
    """Tickets, and what was given up of them."""

    def __init__(self):
        self.given_up = []
        self.tickets = Tickets(self.given_up.append)
        self.numbers = [self.tickets.add(f"job {number}") for number in range(3)]


def test_jobs_are_done_in_order_and_results_stay_until_they_are_released():
    told = Told()
    first, second, _ = told.numbers
    assert [told.tickets.take(), told.tickets.take(), told.tickets.waiting] == [first, second, 1]
    assert told.tickets.job(second) == "job 1"
    answers = iter([(second, "two"), (first, "one")])
    assert told.tickets.result(first, lambda: told.tickets.answer(*next(answers))) == "one"
    assert told.tickets.result(second, pytest.fail) == "two"
    told.tickets.release(second)
    told.tickets.release(second)
    assert told.given_up == [second]


def test_a_job_that_nobody_wants_is_given_up_at_once_where_it_waits_and_else_once_its_worker_is_done():
    told = Told()
    at, later, waits = told.numbers
    told.tickets.take()
    told.tickets.release(at)
    told.tickets.release(waits)
    assert told.given_up == [waits]
    told.tickets.answer(at, "too late")
    assert told.given_up == [waits, at]
    assert told.tickets.take() == later


def test_what_a_lost_worker_had_is_next_unless_nobody_wants_it():
    told = Told()
    first, second, third = told.numbers
    told.tickets.take(), told.tickets.take()
    told.tickets.release(second)
    assert [told.tickets.put_back(each) for each in (second, first)] == [False, True]
    assert [told.tickets.take(), told.tickets.take()] == [first, third]
    assert told.given_up == [second]


def test_an_error_is_raised_to_whoever_asks_and_the_ticket_is_over():
    told = Told()
    first = told.tickets.take()
    told.tickets.answer(first, RuntimeError("no"))
    with pytest.raises(RuntimeError, match="no"):
        told.tickets.result(first, pytest.fail)
    assert told.given_up == [first]
    told.tickets.clear()
    assert (told.given_up, told.tickets.waiting) == (told.numbers, 0)
