"""Staleness: by how much an update counts for less, the more versions the weights have gone on since it began.

The weights are those of FedBuff (Nguyen et al. 2022, Federated Learning with Buffered Asynchronous Aggregation, section
5 and its implementation FLSim) and of FedAsync (Xie et al. 2019, Asynchronous Federated Optimization, section 5.2).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from edgefl_server.aggregation.hyperparameters import SettingError, setting

__all__ = ["BUFFERED", "Buffering", "Staleness"]

BUFFERED = "buffered"
"""The name of the schedule to which the settings here belong."""
_CONCURRENCY_PER_UPDATE = 4
"""Tasks open per update of a fold: an update is then about four versions behind, if devices are alike. With fewer, fast
devices wait for nothing to do; FedBuff's own experiments have 100 for K = 10."""


def _constant(of: Buffering, staleness: float) -> float:
    return 1.0


def _polynomial(of: Buffering, staleness: float) -> float:
    return float((1.0 + staleness) ** -of.staleness_exponent)


def _threshold(of: Buffering, staleness: float) -> float:
    return 1.0 if staleness <= of.staleness_threshold else of.staleness_floor


def _hinge(of: Buffering, staleness: float) -> float:
    beyond = staleness - of.staleness_threshold
    return 1.0 if beyond <= 0 else 1.0 / (of.staleness_slope * beyond + 1.0)


_KINDS: Mapping[str, Callable[[Buffering, float], float]] = MappingProxyType(
    {"constant": _constant, "polynomial": _polynomial, "threshold": _threshold, "hinge": _hinge}
)
_SCALES = ("absolute", "relative")
_NEEDED_BY = {
    "staleness_exponent": ("polynomial",),
    "staleness_threshold": ("threshold", "hinge"),
    "staleness_floor": ("threshold",),
    "staleness_slope": ("hinge",),
}


@dataclass(frozen=True, kw_only=True)
class Buffering:
    """The settings of a run that only the schedule `BUFFERED` has.

    Attributes:
        concurrency: tasks that may be open at a time; 0: four times the target.
        staleness: how an update counts that is τ versions behind: ``constant`` 1; ``polynomial`` (1 + τ)^-a;
            ``threshold`` 1 up to b, then a smaller number; ``hinge`` 1 up to b, then 1 / (a (τ - b) + 1). Empty:
            polynomial with the schedule `BUFFERED`, and constant with others, where nothing is stale or a strategy of
            theirs knows what to do about it.
        staleness_exponent: a of ``polynomial``.
        staleness_threshold: b, in versions.
        staleness_floor: what counts beyond the threshold.
        staleness_slope: a of ``hinge``.
        staleness_scale: ``absolute``, as FedBuff has it: the staler a fold, the shorter its step; or ``relative``, as
            FLSim offers it: divided by the weight of the fold's mean staleness, so that a fold of equally stale updates
            moves the weights as far as one of fresh ones, and only differences between updates count.
        max_staleness: an update that is more versions behind when it is accepted is not folded; 0: every one is.
    """

    concurrency: int = setting(
        0, help="Buffered: tasks that may be open at a time.", shown="4 times the target", lowest=0, highest=1_000_000
    )
    staleness: str = setting(
        "",
        help="Buffered: how stale updates count: constant, polynomial, threshold or hinge.",
        shown="polynomial",
    )
    staleness_exponent: float = setting(
        0.5, help="Polynomial: a of (1 + versions behind)^-a.", shown="0.5", lowest=0, highest=100
    )
    staleness_threshold: int = setting(
        4, help="Threshold and hinge: versions behind up to which an update counts fully.", lowest=0, highest=1_000_000
    )
    staleness_floor: float = setting(
        0.0, help="Threshold: for how much an update counts beyond.", shown="0", lowest=0, highest=1
    )
    staleness_slope: float = setting(
        10.0, help="Hinge: a of 1 / (a (versions beyond) + 1).", shown="10", lowest=0, highest=1e6
    )
    staleness_scale: str = setting(
        "absolute", help="Buffered: absolute, or relative to the weight of the fold's mean staleness."
    )
    max_staleness: int = setting(
        0,
        help="Buffered: updates that are more versions behind are not folded.",
        shown="all are",
        lowest=0,
        highest=1_000_000,
    )

    def check_staleness(self) -> None:
        """Refuses a weight that is none, and settings of another one.

        Raises:
            SettingError: there is one.
        """
        if self.staleness and self.staleness not in _KINDS:
            raise SettingError(f"{{staleness}} expects one of {', '.join(_KINDS)}, got {self.staleness!r:.80}.")
        if self.staleness_scale not in _SCALES:
            raise SettingError(f"{{staleness_scale}} expects {' or '.join(_SCALES)}, got {self.staleness_scale!r:.80}.")
        chosen = self.staleness or "polynomial"
        for name, kinds in _NEEDED_BY.items():
            if getattr(self, name) != getattr(Buffering, name) and chosen not in kinds:
                raise SettingError(
                    f"{{{name}}} has no meaning with {{staleness}} {chosen}.",
                    hint=f"Leave it out, or give {{staleness}} {' or '.join(kinds)}.",
                )

    def tasks_at_once(self, target: int) -> int:
        """Tasks that may be open at a time, where so many updates make a fold."""
        return self.concurrency or _CONCURRENCY_PER_UPDATE * target


@dataclass(frozen=True)
class Staleness:
    """A rule for how stale updates count.

    Attributes:
        kind: one of those of `Buffering`.
        of: where its numbers are.
        relative: see `Buffering`.
    """

    kind: str = "constant"
    of: Buffering = Buffering()
    relative: bool = False

    @classmethod
    def in_run(cls, settings: Buffering, schedule: str) -> Staleness:
        """The rule of a run with these settings, under a schedule of this name."""
        kind = settings.staleness or ("polynomial" if schedule == BUFFERED else "constant")
        return cls(kind, settings, settings.staleness_scale == "relative")

    def weight(self, staleness: float) -> float:
        """The weight s(τ) of an update that is τ versions behind, from 0 to 1."""
        return _KINDS[self.kind](self.of, staleness)

    def factors(self, staleness: list[int]) -> list[float]:
        """The factors by which the updates of a fold are multiplied.

        Args:
            staleness: of each, in versions.
        """
        weights = [self.weight(each) for each in staleness]
        if not self.relative or not weights:
            return weights
        usual = self.weight(sum(staleness) / len(staleness))
        return [each / usual for each in weights] if usual else weights
