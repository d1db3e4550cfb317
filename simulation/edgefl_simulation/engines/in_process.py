"""The engine that is this process itself: nothing is copied, nothing is started."""

from __future__ import annotations

import itertools

from edgefl_simulation.engines.base import Job, Setup, Vectors, Worked
from edgefl_simulation.engines.performing import Performer

__all__ = ["InProcess"]


class InProcess:
    """Does each job when its result is asked for.

    Args:
        setup: what all jobs have in common.
    """

    def __init__(self, setup: Setup) -> None:
        self._performer = Performer(setup)
        self._bases: dict[int, Vectors] = {}
        self._jobs: dict[int, Job] = {}
        self._numbers = itertools.count()

    def publish(self, vectors: Vectors) -> int:
        """See `Engine`."""
        base = next(self._numbers)
        self._bases[base] = dict(vectors)
        return base

    def retire(self, base: int) -> None:
        """See `Engine`."""
        del self._bases[base]

    def submit(self, job: Job) -> int:
        """See `Engine`."""
        ticket = next(self._numbers)
        self._jobs[ticket] = job
        return ticket

    def result(self, ticket: int) -> Worked:
        """See `Engine`."""
        job = self._jobs.pop(ticket)
        return self._performer.do(job, self._bases[job.base])

    def release(self, ticket: int) -> None:
        """See `Engine`; a job that nobody asked for is never done."""
        self._jobs.pop(ticket, None)

    def close(self) -> None:
        """See `Engine`."""
        self._jobs.clear()
        self._bases.clear()
