"""q-FedAvg: Li et al. 2020, "Fair Resource Allocation in Federated Learning", Algorithm 2."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import ClassVar

import numpy as np

from edgefl.manifest import ModelManifest
from edgefl.metrics import BEFORE, LOSS_STATES
from edgefl_server.aggregation.averaging import average, by_examples, pieces
from edgefl_server.aggregation.hyperparameters import SMALLEST, STEPS, setting
from edgefl_server.aggregation.strategies.base import STRATEGIES, Cohort, Strategy, StrategyState
from edgefl_server.aggregation.updates import FoldError, Update, Updates

__all__ = ["QFedAvg", "loss_before"]

_FAR_ABOVE = 10
"""Times the median: no loss counts for more, as it is a device's own word."""
_LEAST = 1e-10
"""A loss that is 0, or below, still has a power."""


def loss_before(update: Update) -> float | None:
    """The mean loss of the received weights on the rows that a device keeps for tests; None: it does not say."""
    states = {each.name: each.values[0] for each in update.metrics if each.values}
    total, rows = (states.get(BEFORE + name) for name in LOSS_STATES)
    if total is None or not rows or rows < 0 or not math.isfinite(total / rows):
        return None
    return total / rows


@STRATEGIES.register("qfedavg")
@dataclass(frozen=True, kw_only=True)
class QFedAvg(Strategy):
    """``w + Σ Fₖ^q Δₖ / Σ (q Fₖ^(q-1) L ‖Δₖ‖² + Fₖ^q)``: devices with a larger loss count for more.

    Fₖ is the loss of the received weights on the rows that device k keeps for tests (``local_test``), which the paper
    takes on those that it trains on. A device that does not say it counts with the median, and none with more than ten
    times that. Beside that every device counts the same; statistics, which the paper does not know, are weighted by
    num_examples.

    Attributes:
        q: how fair; 0: all count the same.
        lipschitz: L; None: 1 / the devices' learning rate, as in the paper's experiments.
    """

    summary: ClassVar[str] = "like accuracy for all devices: those with a larger loss count for more (Li et al. 2020)"
    excluded: ClassVar[Mapping[str, str]] = MappingProxyType(
        dict.fromkeys(
            ("rule", "pre_aggregation", "weighting", "server_optimizer"),
            "how much each device counts for, and how far the weights go, is what it is about",
        )
    )
    needed: ClassVar[Mapping[str, str]] = MappingProxyType(
        {"local_test": "devices say the loss of what they received on rows that they keep for tests"}
    )

    q: float = setting(
        1.0, help="How much qfedavg cares for large losses", lowest=0, highest=100, table="1 unless given"
    )
    lipschitz: float | None = setting(
        None,
        help="qfedavg's L",
        shown="1 / the devices' learning rate",
        lowest=SMALLEST,
        usual=(1 / STEPS[1], 1 / STEPS[0]),
        why="It is about 1 / the devices' learning rate.",
        table="L, 1 / the devices' learning rate unless given",
    )

    def settled(self, manifest: ModelManifest, learning_rate: float) -> Strategy:
        """See `Strategy`."""
        return self if self.lipschitz is not None else replace(self, lipschitz=1 / learning_rate)

    def apply(self, state: StrategyState, updates: Updates, cohort: Cohort) -> tuple[StrategyState, dict[str, float]]:
        """See `Strategy`.

        Raises:
            FoldError: no device says its loss.
        """
        said = {each.task_id: loss_before(each) for each in updates}
        known = [each for each in said.values() if each is not None]
        if not known:
            raise FoldError("no device says its loss on rows kept for tests: they have too few")
        # The lower one: of two devices the one that says too much must not lift what it is measured by.
        median = max(_LEAST, statistics.median_low(known))
        losses = {
            task: min(max(_LEAST, median if loss is None else loss), _FAR_ABOVE * median) for task, loss in said.items()
        }
        # Numerator and denominator over the largest Fₖ^q: a large loss to a high power is no float any more.
        lipschitz, lengths, largest = self.lipschitz or 1.0, 0.0, max(losses.values())

        def weigh(update: Update) -> float:
            nonlocal lengths
            loss = losses[update.task_id]
            power = (loss / largest) ** self.q
            lengths += self.q * power / loss * lipschitz * _squared_norm(update)
            return float(power)

        averages = average(updates, {"delta": weigh, "statistics": by_examples})
        delta = averages["delta"]
        change = np.multiply(delta.total, 1 / (lengths + delta.weight), out=delta.total)
        after, figures = state.moved(change, averages["statistics"].used_up())
        return after, {**figures, "largest_loss": largest, "smallest_loss": min(losses.values())}


def _squared_norm(update: Update) -> float:
    squares, room = 0.0, np.empty(1 << 15, np.float32)
    for part in pieces(update.size("delta"), room.size):
        piece = update.piece("delta", part, room[: part.stop - part.start])
        squares += float(np.sum(np.square(piece, dtype=np.float64)))
    return squares
