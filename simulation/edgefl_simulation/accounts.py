"""The accounts of a round: how tasks ended, seconds by what they went by with, bytes, and what devices spent."""

from __future__ import annotations

from edgefl_simulation.cohorts import Flight
from edgefl_simulation.plans import Costs

__all__ = ["Accounts"]


class Accounts:
    """Adds up what a round costs.

    Args:
        now: when the first one begins.

    Attributes:
        ended: how many of its tasks ended how.
        errors: what devices said, each text once.
    """

    def __init__(self, now: float) -> None:
        self._begin(now)

    def _begin(self, now: float) -> None:
        self._began = now
        self._down = self._up = self._attackers = 0
        self._seconds = self._joules = 0.0
        self._profiles: dict[str, int] = {}
        self._latest: Flight | None = None
        self.ended: dict[str, int] = {}
        self.errors: dict[str, None] = {}

    def over(self, how: str, error: str = "") -> None:
        """A task is over, whatever its device says."""
        self.ended[how] = self.ended.get(how, 0) + 1
        if error:
            self.errors[error] = None

    def asked(self, flight: Flight) -> None:
        """A device was given a task."""
        self._down += flight.bytes_down

    def arrived(self, flight: Flight, now: float, *, accepted: bool) -> None:
        """An outcome came."""
        self._up += flight.bytes_up
        self._latest = flight
        self._spent(flight, now)
        if accepted:
            self._attackers += flight.attacks
            if name := flight.course.profile:
                self._profiles[name] = self._profiles.get(name, 0) + 1

    def broken_off(self, flight: Flight, now: float) -> None:
        """Nobody waits for an outcome any more."""
        self._spent(flight, now)

    def close(self, now: float) -> Costs:
        """Ends a round, and begins the next one."""
        phases = {"download": 0.0, "compute": 0.0, "upload": 0.0}
        if self._latest is not None:
            course = self._latest.course
            for name, (start, end) in course.phases(self._latest.bytes_up).items():
                phases[name] = max(0.0, min(end, now) - max(start, self._began))
            for start, end in course.silences:
                phases["compute"] -= max(0.0, min(end, now) - max(start, self._began))
        seconds = now - self._began
        phases["waiting"] = max(0.0, seconds - sum(phases.values()))
        costs = Costs(
            seconds,
            phases,
            self._down,
            self._up,
            self._seconds,
            self._joules,
            self._profiles,
            self._attackers,
        )
        self._begin(now)
        return costs

    def _spent(self, flight: Flight, now: float) -> None:
        seconds = flight.course.active_seconds(now)
        self._seconds += seconds
        self._joules += seconds * flight.course.watts
