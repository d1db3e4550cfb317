"""Says how long emulated devices take, in simulated seconds, when they are there, and whether they come back at all."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from edgefl.errors import InvalidSettingError
from edgefl_simulation.draws import uniform

__all__ = ["Attended", "Course", "Pace", "Steady", "Work"]


@dataclass(frozen=True)
class Work:
    """A task as far as its time goes.

    Attributes:
        seed: of the run.
        task_id: its own, for whatever is drawn anew each time.
        device: its device's number in the fleet.
        now: when it is handed out, in simulated seconds since the beginning of the run.
        steps: that it is to take.
        bytes_down: that its device fetches for it.
    """

    seed: int
    task_id: str
    device: int
    now: float
    steps: int
    bytes_down: int = 0


@dataclass(frozen=True)
class Course:
    """The course that a task takes; its times are simulated seconds since the beginning of the run.

    Attributes:
        began: when it was handed out.
        received: when everything that it needs has come.
        computed: when it is done with its work, with all that had to be done again.
        byte_seconds: of each byte of the outcome on its way.
        send_seconds: of the outcome, whatever its size.
        gone: when the device goes away for good; nothing happens that would have come later.
        silences: stretches in which the device is heard of as little as after that, but comes back.
        profile: what the device is called; empty: there are no profiles.
        watts: that the device takes while it is at it; 0: not known.
        failure: why it does not even begin to train, as the device would tell its owner; empty: it does.
    """

    began: float
    received: float
    computed: float
    byte_seconds: float = 0.0
    send_seconds: float = 0.0
    gone: float = math.inf
    silences: tuple[tuple[float, float], ...] = ()
    profile: str = ""
    watts: float = 0.0
    failure: str = ""

    @property
    def is_computed(self) -> bool:
        """Whether the device is still there when it is done."""
        return self.computed <= self.gone

    def sent(self, bytes_up: int) -> float:
        """The time at which the last byte of the outcome arrives, unless the device has gone before."""
        return self.computed + self.send_seconds + bytes_up * self.byte_seconds

    def is_heard(self, now: float) -> bool:
        """Whether the device keeps its lease at a time."""
        return now < self.gone and not any(start <= now < end for start, end in self.silences)

    def phases(self, bytes_up: int) -> dict[str, tuple[float, float]]:
        """The beginning and the end of ``download``, ``compute`` and ``upload``."""
        return {
            "download": (self.began, self.received),
            "compute": (self.received, self.computed),
            "upload": (self.computed, self.sent(bytes_up)),
        }

    def active_seconds(self, until: float) -> float:
        """The seconds up to a time in which the device was switched on and at it."""
        end = min(until, self.gone)
        silent = math.fsum(max(0.0, min(stop, end) - start) for start, stop in self.silences)
        return max(0.0, end - self.began - silent)


class Pace(Protocol):
    """A rule for when devices are there, and how long they take."""

    def back(self, seed: int, device: int, now: float) -> float:
        """Says when a device is there: now, or else when next; infinity: never again.

        Args:
            seed: of the run.
            device: its number in the fleet.
            now: in simulated seconds since the beginning of the run.
        """
        ...

    def course(self, work: Work) -> Course:
        """Says what becomes of a task; the same work has the same course."""
        ...


_LONGEST = 1e9
"""Seconds of a step: thirty years. Where times are infinite nothing ever comes, and nobody is told why."""


@dataclass(frozen=True)
class Steady:
    """Every device is always there, takes the same time for a step, and as long for all that is beside its steps.

    Attributes:
        step_seconds: of one step.
        overhead_seconds: of all else: fetching, loading, sending.
        drop_out: the share of tasks whose device is not heard of again, as if it were switched off.
    """

    step_seconds: float = 0.01
    overhead_seconds: float = 1.0
    drop_out: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.drop_out < 1:
            raise InvalidSettingError(
                f"The drop-out expects a share from 0 up to but not including 1, got {self.drop_out}."
            )
        for seconds in (self.step_seconds, self.overhead_seconds):
            if not 0 <= seconds <= _LONGEST:
                raise InvalidSettingError(
                    f"A step, and all beside, expect seconds from 0 to {_LONGEST:g}, got {seconds:g}."
                )

    def back(self, seed: int, device: int, now: float) -> float:
        """See `Pace`."""
        return now

    def course(self, work: Work) -> Course:
        """See `Pace`."""
        lost = self.drop_out and uniform(work.seed, "drop-out", work.task_id) < self.drop_out
        computed = work.now + self.overhead_seconds + work.steps * self.step_seconds
        return Course(work.now, work.now, computed, gone=work.now if lost else math.inf)


@dataclass(frozen=True)
class Attended:
    """A device of the operator's own is always there and loses nothing; all others are as a pace says.

    Attributes:
        pace: of the others.
        device: the number of that one.
    """

    pace: Pace
    device: int

    def back(self, seed: int, device: int, now: float) -> float:
        """See `Pace`."""
        return now if device == self.device else self.pace.back(seed, device, now)

    def course(self, work: Work) -> Course:
        """See `Pace`."""
        return (Steady() if work.device == self.device else self.pace).course(work)
