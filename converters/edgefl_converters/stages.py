"""Seconds by the stages of a conversion: what runs says in which it is, whoever asks is told where the time went."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["OTHER", "Stages", "measured_stages", "stage"]

OTHER = "everything else"
"""The stage of what says none."""


class Stages:
    """Counts seconds by stage; those of a stage inside another are not counted twice, so that all add up.

    Args:
        clock: returns seconds from any beginning.

    Attributes:
        seconds: of each stage so far, in the order in which they ended first.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds: dict[str, float] = {}
        self._clock, self._name, self._since = clock, OTHER, clock()

    def enter(self, name: str) -> str:
        """Goes over to a stage; returns the one before, to go back to."""
        now, before = self._clock(), self._name
        self.seconds[before] = self.seconds.get(before, 0.0) + now - self._since
        self._name, self._since = name, now
        return before

    def __str__(self) -> str:
        """A line for each stage, the longest first."""
        longest = sorted(self.seconds.items(), key=lambda each: -each[1])
        return "\n".join(f"{seconds:7.1f} s  {name}" for name, seconds in longest)


_CURRENT: ContextVar[Stages | None] = ContextVar("edgefl_conversion_stages", default=None)


@contextmanager
def measured_stages(clock: Callable[[], float] = time.monotonic) -> Iterator[Stages]:
    """Measures what runs inside; where somebody outside measures already, it is counted there, and theirs is given.

    Args:
        clock: as `Stages` takes it.
    """
    outer = _CURRENT.get()
    if outer is not None:
        try:
            yield outer
        finally:
            outer.enter(outer.enter(OTHER))  # what has passed until now is counted
        return
    stages = Stages(clock)
    token = _CURRENT.set(stages)
    try:
        yield stages
    finally:
        stages.enter(OTHER)
        _CURRENT.reset(token)


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Counts what runs inside, but for further stages in it, as a stage; also a decorator.

    Args:
        name: for people: ``tracing``.
    """
    stages = _CURRENT.get()
    if stages is None:
        yield
        return
    before = stages.enter(name)
    try:
        yield
    finally:
        stages.enter(before)
