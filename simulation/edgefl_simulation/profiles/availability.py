"""Says when a device is there, as a function of the seed, the device and the time: nothing is kept, nothing runs along.

Being there is what Bonawitz et al. 2019 (Towards Federated Learning at Scale, section 3) call eligible: switched on,
idle, charging and on a network that costs nothing, whatever an owner asks for.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from edgefl_server.aggregation.hyperparameters import check_ranges, setting
from edgefl_simulation.draws import stream, uniform

__all__ = ["AVAILABILITIES", "DAY", "Always", "Availability", "Diurnal", "Markov", "Member", "back_at", "gone_at"]

DAY = 86_400.0
"""Seconds; a simulation begins at midnight."""
_CYCLES = 32
"""Mean stretches of being there and away after which a Markov chain's state is drawn anew."""
_INSTANT = 1e-6
"""Seconds that a stretch lasts at least, however it is rounded."""
_STRETCHES = 10_000
"""So many stretches without being there are taken to last for ever."""


class Member(NamedTuple):
    """A device of a fleet, as far as chance goes by it.

    Attributes:
        seed: of the run.
        device: its number.
        name: its id.
    """

    seed: int
    device: int
    name: str


class Availability(Protocol):
    """A rule for when devices are there; a dataclass whose fields are what it can be set to."""

    def stretch(self, who: Member, now: float) -> tuple[bool, float]:
        """Says whether a device is there at a time, and until when that lasts at least.

        Args:
            who: the device.
            now: in simulated seconds since the beginning of the run.
        """
        ...


def back_at(rule: Availability, who: Member, now: float) -> float:
    """Says when a device is there: now, or else when next; infinity: never."""
    for _ in range(_STRETCHES):
        there, end = rule.stretch(who, now)
        if there or end == math.inf:
            return now if there else math.inf
        now = max(end, now + _INSTANT)
    return math.inf


def gone_at(rule: Availability, who: Member, now: float) -> float:
    """Says when a device that is there goes away; infinity: never."""
    for _ in range(_STRETCHES):
        there, end = rule.stretch(who, now)
        if not there or end == math.inf:
            return end if there else now
        now = max(end, now + _INSTANT)
    return math.inf


@dataclass(frozen=True)
class Always:
    """Devices that are always there."""

    kind: ClassVar[str] = "always"

    def stretch(self, who: Member, now: float) -> tuple[bool, float]:
        """See `Availability`."""
        return True, math.inf


@dataclass(frozen=True)
class Diurnal:
    """Devices that are there for some hours of each day, each at its own time: phones that charge at night.

    Attributes:
        from_hour: when the middle one of them comes, after midnight, where the simulation begins.
        hours: how long each stays.
        spread_hours: the first comes half as long before the middle one, the last half as long after it.
    """

    kind: ClassVar[str] = "diurnal"
    from_hour: float = setting(22.0, help="The hour at which the middle one comes.", lowest=0, highest=24)
    hours: float = setting(8.0, help="Hours for which each stays.", lowest=0.01, highest=24)
    spread_hours: float = setting(4.0, help="Hours between the first that comes and the last.", lowest=0, highest=24)

    def __post_init__(self) -> None:
        check_ranges(self)

    def stretch(self, who: Member, now: float) -> tuple[bool, float]:
        """See `Availability`."""
        stays = 3600 * self.hours
        if stays > DAY - 1:  # no second of the day is left
            return True, math.inf
        own = (uniform(who.seed, "hours", who.device) - 0.5) * self.spread_hours
        since = (now - 3600 * (self.from_hour + own)) % DAY % DAY  # the first of a hair below 0 is a whole day
        return (True, now + stays - since) if since < stays else (False, now + DAY - since)


@dataclass(frozen=True)
class Markov:
    """Devices that come and go at random: exponential stretches of being there and away (a chain of two states).

    The chain has no beginning that would have to be gone through to know a later time: after some dozen mean stretches
    it starts afresh, from the state in which it would be in the long run.

    Attributes:
        mean_on_seconds: of being there.
        mean_off_seconds: of being away.
    """

    kind: ClassVar[str] = "markov"
    mean_on_seconds: float = setting(help="Mean seconds of being there.", lowest=1, highest=31e6)
    mean_off_seconds: float = setting(help="Mean seconds of being away.", lowest=1, highest=31e6)

    def __post_init__(self) -> None:
        check_ranges(self)

    def stretch(self, who: Member, now: float) -> tuple[bool, float]:
        """See `Availability`."""
        cycle = _CYCLES * (self.mean_on_seconds + self.mean_off_seconds)
        epoch = int(now // cycle)
        first, ends = _chain(self, who.seed, who.device, epoch)
        number = int(np.searchsorted(ends, now - epoch * cycle, side="right"))
        end = ends[number] if number < len(ends) else cycle
        return first == (number % 2 == 0), epoch * cycle + min(float(end), cycle)


@functools.lru_cache(maxsize=4096)
def _chain(rule: Markov, seed: int, device: int, epoch: int) -> tuple[bool, NDArray[np.float64]]:
    """Whether a device is there as an epoch begins, and when each of its stretches ends, at least as long as it is."""
    on, off = rule.mean_on_seconds, rule.mean_off_seconds
    drawn = stream(seed, "comes and goes", device, epoch)
    first = float(drawn.random_raw() >> 11) * 2.0**-53 < on / (on + off)
    means = (on, off) if first else (off, on)
    ends: NDArray[np.float64] = np.empty(0)
    while not ends.size or ends[-1] < _CYCLES * (on + off):
        raw = (drawn.random_raw(2 * _CYCLES) >> np.uint64(11)).astype(np.float64)
        stretches = -np.log1p(-raw * 2.0**-53) * np.tile(means, _CYCLES)
        ends = np.concatenate([ends, (ends[-1] if ends.size else 0.0) + np.cumsum(stretches)])
    return first, ends


AVAILABILITIES: Mapping[str, type[Any]] = {each.kind: each for each in (Always, Diurnal, Markov)}
"""The rules that need no file, by name; ``trace`` is beside them."""
