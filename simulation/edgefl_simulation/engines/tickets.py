"""The tickets of an engine whose workers are elsewhere: jobs that wait, that a worker is at, or that are answered."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable

from edgefl_simulation.engines.base import Job, Worked

__all__ = ["Tickets"]

Answer = Worked | Exception


class Tickets:
    """Keeps jobs in the order in which they were submitted, until somebody has what came of them and needs it no more.

    Args:
        given_up: called with a ticket that nobody will ask for again and no worker is at: whatever was kept for it may
            go.
    """

    def __init__(self, given_up: Callable[[int], None] = lambda ticket: None) -> None:
        self._given_up = given_up
        self._numbers = itertools.count()
        self._waiting: deque[int] = deque()
        self._jobs: dict[int, Job] = {}
        self._told: set[int] = set()
        self._answers: dict[int, Answer] = {}
        self._unwanted: set[int] = set()

    @property
    def waiting(self) -> int:
        """The number of jobs that no worker is at."""
        return len(self._waiting)

    def add(self, job: Job) -> int:
        """Takes a job; its ticket."""
        ticket = next(self._numbers)
        self._jobs[ticket] = job
        self._waiting.append(ticket)
        return ticket

    def job(self, ticket: int) -> Job:
        """The job of a ticket."""
        return self._jobs[ticket]

    def take(self) -> int:
        """The ticket of the job that has waited longest, which a worker is at from now on."""
        ticket = self._waiting.popleft()
        self._told.add(ticket)
        return ticket

    def put_back(self, ticket: int) -> bool:
        """The worker is lost: the job is the next one again, unless nobody wants it any more; whether it is."""
        self._told.discard(ticket)
        if ticket in self._unwanted:
            self._forget(ticket)
            return False
        self._waiting.appendleft(ticket)
        return True

    def answer(self, ticket: int, answer: Answer) -> None:
        """The worker is done."""
        self._told.discard(ticket)
        self._answers[ticket] = answer
        if ticket in self._unwanted:
            self._forget(ticket)

    def result(self, ticket: int, collect: Callable[[], None]) -> Worked:
        """Waits for what came of a job.

        Args:
            ticket: the job's.
            collect: waits for workers, and calls `answer`.

        Raises:
            Exception: what the worker answered, or `collect` raises.
        """
        while ticket not in self._answers:
            collect()
        answer = self._answers[ticket]
        if isinstance(answer, Exception):
            self.release(ticket)
            raise answer
        return answer

    def release(self, ticket: int) -> None:
        """Nobody asks for a job, or for what came of it, again."""
        if ticket not in self._jobs:
            return
        if ticket in self._told:
            self._unwanted.add(ticket)  # a worker is at it
            return
        if ticket not in self._answers:
            self._waiting.remove(ticket)
        self._forget(ticket)

    def clear(self) -> None:
        """Nobody asks for anything again."""
        for ticket in list(self._jobs):
            self._forget(ticket)
        self._waiting.clear()
        self._told.clear()

    def _forget(self, ticket: int) -> None:
        del self._jobs[ticket]
        self._answers.pop(ticket, None)
        self._unwanted.discard(ticket)
        self._given_up(ticket)
