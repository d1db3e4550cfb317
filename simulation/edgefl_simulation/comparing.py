"""Compares runs by what they cost: the three protocols of EdgeFlowerTune (Geng et al. 2026, arXiv 2605.08636).

*Quality under a budget* is the metric that a run has when the budget is used up; *cost to a target* is what it has
spent when its metric first reaches one; *robustness* is what is left of it when devices drop out, are away or attack,
beside the same run without that. There costs are measured on phones; here they are simulated seconds, bytes, and energy
where a profile knows it.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgefl.errors import InvalidSettingError
from edgefl_server.aggregation import is_better
from edgefl_simulation import recorded
from edgefl_simulation.curves import DEVICES, metrics_in

__all__ = ["Budget", "Finished", "Point", "compare", "cost_to_target", "points", "quality_under_budget", "read_run"]

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Finished:
    """A run, whether it is over or not.

    Attributes:
        name: what it is called in a table.
        settings: as its folder has them.
        initial: the evaluation before its first round; nothing where it is not known.
        rounds: a row for each round, see `edgefl_simulation.history.row_of`.
    """

    name: str
    settings: Row
    initial: Row
    rounds: Sequence[Row]


@dataclass(frozen=True)
class Budget:
    """The most that a run may spend; None: as much as it likes.

    Attributes:
        seconds: simulated.
        bytes: down and up together.
        joules: of all devices together.
        rounds: how many.
    """

    seconds: float | None = None
    bytes: float | None = None
    joules: float | None = None
    rounds: float | None = None

    def __post_init__(self) -> None:
        for name, most in asdict(self).items():
            if most is not None and not most >= 0:
                raise InvalidSettingError(f"A budget of {name} expects a number of at least 0, got {most:g}.")

    def allows(self, point: Point) -> bool:
        """Whether no more was spent."""
        return all(most is None or getattr(point, name) <= most for name, most in asdict(self).items())


@dataclass(frozen=True)
class Point:
    """A metric of a run, and what was spent until then.

    Attributes:
        value: of the metric.
        rounds: that were over.
        seconds: simulated.
        bytes: down and up together.
        joules: of all devices together; 0: not known.
        device_seconds: for which devices were at tasks, all together.
    """

    value: float
    rounds: int = 0
    seconds: float = 0.0
    bytes: int = 0
    joules: float = 0.0
    device_seconds: float = 0.0


def read_run(folder: Path) -> Finished:
    """Reads what a simulation has left in its folder so far.

    Raises:
        InvalidSettingError: it is no such folder.
        StorageError: it cannot be read, or is damaged.
    """
    found = recorded.read_run(folder)
    return Finished(str(folder), found.settings, found.initial, found.rounds)


def points(run: Finished, metric: str) -> list[Point]:
    """A metric on the held-out rows, or else its mean over devices, as often as it was evaluated.

    Raises:
        InvalidSettingError: it never was.
    """
    found, spent = [], Point(0.0)
    for row in [{**run.initial, "round": 0}, *run.rounds]:
        spent = Point(
            0.0,
            row["round"],
            row.get("clock") or 0.0,
            spent.bytes + row.get("bytes_down", 0) + row.get("bytes_up", 0),
            spent.joules + row.get("energy_joules", 0.0),
            spent.device_seconds + row.get("device_seconds", 0.0),
        )
        values = metrics_in(row, "central") or metrics_in(row, DEVICES)
        if metric in values:
            found.append(Point(**{**asdict(spent), "value": values[metric]}))
    if not found:
        known = sorted({name for row in run.rounds for name in row.get("central", row.get("federated", {}))})
        raise InvalidSettingError(
            f"{run.name} has no metric {metric!r:.80}; it has {', '.join(known) or 'none: it was never evaluated'}."
        )
    return found


def quality_under_budget(found: Sequence[Point], budget: Budget) -> Point | None:
    """The latest evaluation that a budget allows; None: it does not allow the first."""
    return next((point for point in reversed(found) if budget.allows(point)), None)


def cost_to_target(found: Sequence[Point], metric: str, target: float) -> Point | None:
    """The first evaluation that reaches a target; None: none does."""
    return next((point for point in found if is_better(metric, point.value, target)), None)


def compare(
    runs: Sequence[Finished], metric: str, budget: Budget, target: float | None = None
) -> dict[str, dict[str, Any]]:
    """Compares runs by the three protocols.

    Args:
        runs: of which the first is what robustness is held against.
        metric: on the held-out rows.
        budget: without any bound it is the time that the shortest run took.
        target: for the metric; None: none.

    Returns:
        ``quality_under_budget``, ``cost_to_target`` (with a target) and ``robustness`` (with several runs), each with
        the runs by name, as plain values.

    Raises:
        InvalidSettingError: a run never evaluated the metric, or two have one name.
    """
    if len({run.name for run in runs}) < len(runs):
        raise InvalidSettingError("A run is given twice.")
    found = {run.name: points(run, metric) for run in runs}
    if budget == Budget():
        budget = Budget(seconds=min(each[-1].seconds for each in found.values()))
    result: dict[str, dict[str, Any]] = {
        "quality_under_budget": {
            "budget": {name: most for name, most in asdict(budget).items() if most is not None},
            "runs": {name: _plain(quality_under_budget(each, budget)) for name, each in found.items()},
        }
    }
    if target is not None:
        result["cost_to_target"] = {
            "target": target,
            "runs": {name: _plain(cost_to_target(each, metric, target)) for name, each in found.items()},
        }
    if len(runs) > 1:
        first = runs[0]
        result["robustness"] = {
            "against": first.name,
            "runs": {run.name: _beside(found[first.name][-1], found[run.name][-1], first, run) for run in runs},
        }
    return result


def _beside(without: Point, point: Point, first: Finished, run: Finished) -> dict[str, Any]:
    """The end of a run beside that of another one."""
    return {
        "value": point.value,
        "change": point.value - without.value,
        "seconds_ratio": point.seconds / without.seconds if without.seconds else None,
        "bytes_ratio": point.bytes / without.bytes if without.bytes else None,
        "attackers": sum(row.get("attackers", 0) for row in run.rounds),
        "updates": sum(row.get("outcomes", {}).get("done", 0) for row in run.rounds),
        "differs_in": _differences(first.settings, run.settings),
    }


def _differences(one: Any, other: Any, name: str = "") -> list[str]:
    """The names of the settings in which two runs differ, as far down as both have them; data is one."""
    if one == other:
        return []
    if name != "data" and isinstance(one, Mapping) and isinstance(other, Mapping):
        found = [
            _differences(one.get(key), other.get(key), f"{name}.{key}" if name else key)
            for key in sorted({*one, *other})
        ]
        return list(itertools.chain.from_iterable(found))
    return [name]


def _plain(point: Point | None) -> dict[str, Any] | None:
    return None if point is None else asdict(point)
