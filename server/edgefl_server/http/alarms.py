"""The alarms that there are: values that were seen and the time go in, what has begun or is over comes out. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["Alarm", "Alarms", "Observed", "ObservedRun"]

STUCK_SECONDS = 1800.0
"""A run of which no outcome was accepted and no round ended for so long, whatever its deadline."""
VANISHED_SECONDS = 600.0
"""Devices that wait for work call about every 25 seconds, those that are blocked or told to come back less often."""
_WINDOW_SECONDS = 600.0
_REFUSED_AT_LEAST = 20
"""Fewer in a window may be of a single device with an old version."""
_SPARE_BYTES = 1 << 30


@dataclass(frozen=True)
class ObservedRun:
    """A run that is active.

    Attributes:
        run: its id.
        name: empty where it has none.
        progress: something that changes whenever an outcome is accepted or a round ends.
    """

    run: str
    name: str
    progress: tuple[int, ...]


@dataclass(frozen=True)
class Observed:
    """Everything that alarms are about, as it is now.

    Attributes:
        runs: that are active.
        devices: that are enrolled.
        called_at: when any device called last; only whether it changes counts.
        accepted: outcomes that were accepted since the start.
        refused: outcomes that were refused since the start, by reason.
        free_bytes: on the disk of the state folder.
    """

    runs: tuple[ObservedRun, ...]
    devices: int
    called_at: float
    accepted: int
    refused: Mapping[str, int]
    free_bytes: int


@dataclass(frozen=True)
class Alarm:
    """Something that an operator should know now, or that is over.

    Attributes:
        alarm: ``run_stuck``, ``fleet_vanished``, ``refusals_rising`` or ``disk_low``.
        about: the run's id; else empty.
        state: ``raised`` or ``over``.
        message: one line.
    """

    alarm: str
    about: str
    state: str
    message: str


@dataclass
class Alarms:
    """Remembers what was seen before; each alarm is raised once, and said to be over once.

    Attributes:
        stuck_seconds: see `STUCK_SECONDS`.
        vanished_seconds: see `VANISHED_SECONDS`.
    """

    stuck_seconds: float = STUCK_SECONDS
    vanished_seconds: float = VANISHED_SECONDS
    _since: dict[str, tuple[object, float]] = field(default_factory=dict)
    _window: list[tuple[float, int, dict[str, int]]] = field(default_factory=list)
    _raised: dict[tuple[str, str], str] = field(default_factory=dict)

    def look(self, seen: Observed, now: float) -> list[Alarm]:
        """The alarms that begin or end with what is seen now.

        Args:
            seen: at this moment.
            now: in seconds, on a clock that only grows.
        """
        found = {**self._stuck(seen, now), **self._vanished(seen, now), **self._refusals(seen, now), **_disk(seen)}
        begun = [Alarm(*key, "raised", text) for key, text in found.items() if key not in self._raised]
        over = [Alarm(*key, "over", text) for key, text in self._raised.items() if key not in found]
        # What is said of one that goes on is what was said first.
        self._raised = {key: self._raised.get(key, text) for key, text in found.items()}
        return begun + over

    def _unchanged(self, what: str, value: object, now: float) -> float:
        """For how many seconds something has been what it is."""
        if what not in self._since or self._since[what][0] != value:
            self._since[what] = value, now
        return now - self._since[what][1]

    def _stuck(self, seen: Observed, now: float) -> dict[tuple[str, str], str]:
        active = {f"run {each.run}" for each in seen.runs}
        self._since = {what: each for what, each in self._since.items() if what in active or what == "calls"}
        found = {}
        for each in seen.runs:
            seconds = self._unchanged(f"run {each.run}", each.progress, now)
            if seconds >= self.stuck_seconds:
                named = f" ({each.name})" if each.name else ""
                minutes = f"{seconds / 60:.0f} minutes"
                found["run_stuck", each.run] = f"run {each.run}{named}: nothing was accepted for {minutes}"
        return found

    def _vanished(self, seen: Observed, now: float) -> dict[tuple[str, str], str]:
        seconds = self._unchanged("calls", seen.called_at, now)
        if not seen.runs or not seen.devices or seconds < self.vanished_seconds:
            return {}
        text = f"none of {seen.devices} devices has called for {seconds / 60:.0f} minutes, and a run is active"
        return {("fleet_vanished", ""): text}

    def _refusals(self, seen: Observed, now: float) -> dict[tuple[str, str], str]:
        self._window.append((now, seen.accepted, dict(seen.refused)))
        while len(self._window) > 1 and now - self._window[1][0] >= _WINDOW_SECONDS:
            self._window.pop(0)
        _, accepted, before = self._window[0]
        more = {reason: count - before.get(reason, 0) for reason, count in seen.refused.items()}
        refused = sum(more.values())
        if refused < _REFUSED_AT_LEAST or refused <= seen.accepted - accepted:
            return {}
        worst = max(more, key=lambda each: more[each])
        text = f"{refused} outcomes were refused in ten minutes, more than were accepted; most of them: {worst}"
        return {("refusals_rising", ""): text}


def _disk(seen: Observed) -> dict[tuple[str, str], str]:
    if seen.free_bytes >= _SPARE_BYTES:
        return {}
    return {("disk_low", ""): f"{seen.free_bytes / 1e6:.0f} MB are left on the disk of the state folder"}
