"""A profile on a fleet: which device is of which kind, which attacks, and what becomes of a task on each.

The kinds have their shares exactly, to rounding, in an order that the seed says. That is one small table, made once;
everything else is drawn when it is asked for.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgefl_simulation.attacks import Attack
from edgefl_simulation.draws import stream, uniform
from edgefl_simulation.pace import Course, Pace, Steady, Work
from edgefl_simulation.profiles.availability import Member, back_at, gone_at
from edgefl_simulation.profiles.costs import Cost
from edgefl_simulation.profiles.schema import DeviceProfile, FleetProfile

__all__ = ["Deployment"]

Silences = tuple[tuple[float, float], ...]

_MOST_CRASHES = 20
"""A device that crashes more often in one task is gone."""
_NORMAL = statistics.NormalDist()
_NO_SILENCE: Silences = ()


class Deployment:
    """The devices of a fleet as a profile says; a `Pace`.

    Args:
        profile: what they are.
        names: their ids.
        seed: of the run.
        cost: of its model.
        steady: how long they take where the profile does not say.
    """

    def __init__(
        self, profile: FleetProfile, names: Sequence[str], seed: int, cost: Cost, steady: Pace | None = None
    ) -> None:
        self._profile, self._names, self._seed, self._cost = profile, names, seed, cost
        self._steady = steady or Steady()
        shares = [each.share for each in profile.devices]
        self._kinds = _dealt(len(names), [share / math.fsum(shares) for share in shares], stream(seed, "profiles"))
        self._attackers = np.full(len(names), -1, np.int16)
        free = np.ones(len(names), bool)
        for number, each in enumerate(profile.attackers):
            among = np.ones(len(names), bool) if not each.among else self._kinds == self._kind(each.among)
            wanted = round(each.share * int(among.sum()))
            place = stream(seed, "attackers", number).random_raw(len(names))
            chosen = np.flatnonzero(among & free)
            chosen = chosen[np.argsort(place[chosen], kind="stable")][:wanted]
            self._attackers[chosen] = number
            free[chosen] = False

    def back(self, seed: int, device: int, now: float) -> float:
        """See `edgefl_simulation.pace.Pace`."""
        if not self._profile.devices:
            return self._steady.back(seed, device, now)
        return back_at(self._of(device).availability, Member(seed, device, self._names[device]), now)

    def course(self, work: Work) -> Course:
        """See `edgefl_simulation.pace.Pace`."""
        if not self._profile.devices:
            return self._steady.course(work)
        kind = self._of(work.device)
        network, compute = kind.network, kind.compute
        rate = _factor(network.spread, work, "network")
        trip = network.latency_ms / 1e3
        # A task is asked for, and then fetched; its outcome is one more message, with an answer.
        received = work.now + 2 * trip + _seconds(work.bytes_down, network.down_mbit_s * rate)
        failure = ""
        if compute.memory_mb and self._cost.memory_bytes > 1e6 * compute.memory_mb:
            failure = (
                f"The task needs about {self._cost.memory_bytes / 1e6:,.0f} MB of memory, and a device of the profile "
                f"{kind.name} has {compute.memory_mb:g}."
            )
        computed, silences, gone = received, _NO_SILENCE, math.inf
        if not failure:
            step = compute.step_overhead_ms / 1e3 + self._cost.flops / (1e9 * compute.gflops)
            speed = _factor(compute.spread, work, "speed")
            takes = (compute.task_overhead_seconds + work.steps * step) / speed
            computed, silences, gone = _with_crashes(kind, work, received, takes)
        gone = min(gone, gone_at(kind.availability, Member(work.seed, work.device, self._names[work.device]), work.now))
        lost = kind.reliability.drop_out
        if lost and uniform(work.seed, "drop-out", work.task_id) < lost:
            gone = min(gone, work.now + uniform(work.seed, "drops out at", work.task_id) * (computed - work.now))
        return Course(
            began=work.now,
            received=received,
            computed=computed,
            byte_seconds=_seconds(1, network.up_mbit_s * rate),
            send_seconds=trip,
            gone=gone,
            silences=silences,
            profile=kind.name,
            watts=compute.watts,
            failure=failure,
        )

    def attack(self, device: int) -> Attack | None:
        """The attack of a device; None: it is honest."""
        number = int(self._attackers[device])
        return None if number < 0 else self._profile.attackers[number].attack

    def count(self) -> dict[str, int]:
        """The number of devices of each kind."""
        numbers = np.bincount(self._kinds, minlength=len(self._profile.devices)) if self._profile.devices else ()
        return {kind.name: int(number) for kind, number in zip(self._profile.devices, numbers, strict=True)}

    def _of(self, device: int) -> DeviceProfile:
        return self._profile.devices[int(self._kinds[device])]

    def _kind(self, name: str) -> int:
        return [each.name for each in self._profile.devices].index(name)


def _dealt(count: int, shares: Sequence[float], random: np.random.Philox) -> NDArray[np.uint16]:
    """Numbers of shares, ``[count]``: each as often as it says, in a random order."""
    found: NDArray[np.uint16] = np.zeros(count, np.uint16)
    if len(shares) > 1:
        order = np.argsort(random.random_raw(count), kind="stable")
        ends = [round(count * total) for total in itertools.accumulate(shares)]
        for number, (start, end) in enumerate(itertools.pairwise([0, *ends])):
            found[order[start:end]] = number
    return found


def _with_crashes(kind: DeviceProfile, work: Work, received: float, takes: float) -> tuple[float, Silences, float]:
    """The end of work of so many seconds, the silences until then, and when the device is gone for good."""
    rate = kind.reliability.crashes_per_hour / 3600
    now = received
    silences: list[tuple[float, float]] = []
    if rate:
        for number in range(_MOST_CRASHES):
            until = -math.log1p(-uniform(work.seed, "crash", work.task_id, number)) / rate
            if until >= takes:
                return now + takes, tuple(silences), math.inf
            now += until
            silences.append((now, now + kind.reliability.restart_seconds))
            now += kind.reliability.restart_seconds
        return now + takes, tuple(silences[:-1]), silences[-1][0]
    return now + takes, (), math.inf


def _factor(spread: float, work: Work, what: str) -> float:
    """The speed of a device over that of its kind."""
    if not spread:
        return 1.0
    drawn = uniform(work.seed, what, work.device)
    return math.exp(spread * _NORMAL.inv_cdf(min(max(drawn, 1e-12), 1 - 1e-12)))


def _seconds(count: int, mbit_s: float) -> float:
    return 8 * count / (1e6 * mbit_s)
