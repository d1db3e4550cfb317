"""What every strategy has: how the outcomes of a round become new weights. Pure: values in, values out.

A strategy has three functions (the shape is FedJAX's, Ro et al. 2021): ``init(weights) -> state``,
``fold(accumulator, update) -> accumulator`` for one outcome after the other, ``finish(state, accumulator) -> state,
diagnostics``. The caller folds in task-id order, so that the result does not depend on arrival.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgefl.errors import RunError
from edgefl.wire.messages import Correction, TaskKind

__all__ = ["Accumulator", "Demand", "Strategy", "StrategyState", "Update", "add", "diagnostics", "norm"]


def _nothing() -> NDArray[np.float32]:
    return np.empty(0, np.float32)


@dataclass(frozen=True)
class Update:
    """One device's contribution, decoded and validated.

    Attributes:
        task_id: whose; the order of folding.
        num_examples: as they count, which may be less than the device says.
        delta: float32 ``[weight_size]``: trained minus received, of role ``weight``.
        statistics: float32 ``[statistic_size]``: the same of role ``statistic``, already in their range; empty where
            there are none.
        control: float32 ``[weight_size]``: how SCAFFOLD's ``c_i`` changed; empty where it was not asked for.
        gradient: float32 ``[weight_size]``: at the received weights; empty where it was not asked for, as ``delta`` is
            where it was.
    """

    task_id: str
    num_examples: int
    delta: NDArray[np.float32]
    statistics: NDArray[np.float32]
    control: NDArray[np.float32] = field(default_factory=_nothing)
    gradient: NDArray[np.float32] = field(default_factory=_nothing)


@dataclass(frozen=True)
class StrategyState:
    """What a strategy keeps from round to round.

    Attributes:
        weights: float32 ``[size]``: the weight section, then the statistic section.
        slots: further vectors by name, for strategies with a memory; kept and restored like the weights.
    """

    weights: NDArray[np.float32]
    slots: dict[str, NDArray[np.float32]] = field(default_factory=dict)


@dataclass(frozen=True)
class Accumulator:
    """A running weighted sum.

    Attributes:
        total: float64 ``[size]``: sum of weight × (delta or gradient, statistics).
        weight: sum of num_examples.
        outcomes: how many were folded.
        last: task id of the latest, to catch a caller that folds in another order.
        control: float64 ``[weight_size]``: sum of the sections ``control``; None where there are none.
    """

    total: NDArray[np.float64]
    weight: float = 0.0
    outcomes: int = 0
    last: str = ""
    control: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class Demand:
    """What a strategy asks of the devices.

    Attributes:
        kind: of the tasks.
        mu: FedProx's mu or FedDyn's alpha.
        correction: what devices add to the gradient.
        sections: of an outcome; ``statistics`` only where the layout has some.
        vectors: slots that a task names and its device may fetch.
    """

    kind: TaskKind = TaskKind.TRAIN
    mu: float = 0.0
    correction: Correction = Correction.NONE
    sections: tuple[str, ...] = ("delta", "statistics")
    vectors: tuple[str, ...] = ()


class Strategy(Protocol):
    """What the server asks of a strategy."""

    @property
    def demand(self) -> Demand:
        """What the devices are to do."""
        ...

    def init(self, weights: NDArray[np.float32]) -> StrategyState:
        """The state before the first round."""
        ...

    def start(self, state: StrategyState) -> Accumulator:
        """An empty accumulator for one round."""
        ...

    def fold(self, accumulator: Accumulator, update: Update) -> Accumulator:
        """Takes one outcome in; the given accumulator must not be used afterwards."""
        ...

    def finish(self, state: StrategyState, accumulator: Accumulator) -> tuple[StrategyState, dict[str, float]]:
        """The state after the round, and figures about it."""
        ...


def add(accumulator: Accumulator, update: Update, weight: float, *, uniform: bool = False) -> Accumulator:
    """Adds an outcome to the sums; the given accumulator must not be used afterwards.

    Args:
        accumulator: the sums.
        update: the outcome.
        weight: its num_examples.
        uniform: the weight section counts once for each device instead; statistics never do.

    Raises:
        RunError: the outcomes do not come in ascending order of their task ids.
    """
    if update.task_id <= accumulator.last:
        raise RunError(f"Outcomes are folded in task-id order, got {update.task_id} after {accumulator.last}.")
    moved = update.gradient if update.gradient.size else update.delta
    total, split, control = accumulator.total, moved.size, accumulator.control
    # In place: two vectors of float64 for each of thousands of outcomes would cost more than the sums.
    total[:split] += np.multiply(moved, 1.0 if uniform else weight, dtype=np.float64)
    if update.statistics.size:
        total[split:] += np.multiply(update.statistics, weight, dtype=np.float64)
    if control is not None:
        control += update.control
    return Accumulator(total, accumulator.weight + weight, accumulator.outcomes + 1, update.task_id, control)


def diagnostics(accumulator: Accumulator, moved: NDArray[np.float64]) -> dict[str, float]:
    """Figures about a round.

    Args:
        accumulator: of its outcomes.
        moved: by how much the weights changed, float64.
    """
    return {"outcomes": float(accumulator.outcomes), "weight": accumulator.weight, "update_norm": norm(moved)}


def norm(vector: NDArray[np.float64]) -> float:
    """L2 norm."""
    return float(np.sqrt(np.dot(vector, vector)))
