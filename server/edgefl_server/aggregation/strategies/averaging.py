"""The base of strategies that make one direction of the updates: a server optimizer ∘ a rule ∘ pre-aggregators."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from edgefl_server.aggregation.averaging import Average, Weighting, average, by_examples, equally
from edgefl_server.aggregation.hyperparameters import SettingError, part, setting
from edgefl_server.aggregation.points import Points
from edgefl_server.aggregation.pre_aggregation import PRE_AGGREGATORS, PreAggregator
from edgefl_server.aggregation.rules import RULES, Mean, Rule
from edgefl_server.aggregation.server_optimizers import ServerOptimizer
from edgefl_server.aggregation.strategies.base import Cohort, Strategy, StrategyState
from edgefl_server.aggregation.updates import Update, Updates

__all__ = ["Averaging"]

_EXAMPLES, _UNIFORM = "examples", "uniform"
_FAR_ABOVE = 10
"""Times the median: no length counts for more."""
_QUARTER_FROM = 4
"""A quarter of fewer updates is none of them."""


@dataclass(frozen=True, kw_only=True)
class Averaging(Strategy):
    """Folds by parts that are chosen by name, each of which acts on the weight section.

    Statistics are averaged with the same weights, which keeps variances positive; under a robust rule they have one of
    their own, see `Rule.combine_statistics`.

    Attributes:
        weighting: ``examples``: each device counts for its examples, ``uniform``: each the same; None: for its examples
            where the rule is no robust one, under which all count the same, as how many it has is a device's own word.
        pre_aggregation: what is done to the updates before, in this order.
        rule: what makes one vector of them.
    """

    section: ClassVar[str] = "delta"
    """The section that becomes a direction."""

    weighting: str | None = setting(
        None,
        help="What each device counts for: examples or uniform",
        shown="examples; uniform under a robust rule",
        choices=(_EXAMPLES, _UNIFORM),
    )
    pre_aggregation: tuple[PreAggregator, ...] = part(
        PRE_AGGREGATORS, "", help="What is done to updates before the rule, divided by commas: {names}.", several=True
    )
    rule: Rule = part(RULES, "mean", help="What makes one update of all: {names}.")

    @property
    def is_robust(self) -> bool:
        """See `Strategy`."""
        return self.rule.robust

    @property
    def counts_updates(self) -> bool:
        """See `Strategy`; medians, quantiles and nearest neighbours are taken before a rule, too."""
        return self.is_robust or bool(self.pre_aggregation)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weighting == _EXAMPLES and self.rule.robust:
            raise SettingError(
                "{weighting} examples does not go with a robust {rule}: how many examples it has is a device's own "
                "word, and by it a bad one would count for many.",
                hint="Leave it out.",
            )

    @property
    @abstractmethod
    def optimizer(self) -> ServerOptimizer:
        """The server optimizer, which moves the weights along the direction."""

    @property
    def fewest(self) -> int:
        """See `Strategy`."""
        wanted = self.rule.fewest
        for each in reversed(self.pre_aggregation):
            wanted = each.fewest(wanted)
        return wanted

    @property
    def guards_from(self) -> int:
        """See `Strategy`."""
        guesses = [_guesses(each) for each in (*self.pre_aggregation, self.rule)]
        if not any(guesses):
            return 0
        rule = replace(self.rule, byzantine=1) if guesses.pop() else self.rule  # type: ignore[type-var]
        wanted = max(rule.fewest, _QUARTER_FROM if rule is not self.rule else 0)
        for each, guessing in reversed(list(zip(self.pre_aggregation, guesses, strict=True))):
            wanted = max(each.fewest(wanted), _QUARTER_FROM if guessing else 0)
        return wanted

    def init(self, weights: NDArray[np.float32], weight_size: int) -> StrategyState:
        """See `Strategy`."""
        slots = {**self.rule.init(weight_size), **self.optimizer.init(weight_size)}
        for each in self.pre_aggregation:
            slots.update(each.init())
        return StrategyState(weights, weight_size, slots)

    def apply(self, state: StrategyState, updates: Updates, cohort: Cohort) -> tuple[StrategyState, dict[str, float]]:
        """See `Strategy`."""
        lengths = _Lengths(self.weigh, self.length)
        slots: dict[str, NDArray[np.float32]] = {}
        figures: dict[str, float] = {}
        if type(self.rule) is Mean and not self.pre_aggregation:
            averages = average(updates, {self.section: lengths, "statistics": self.weigh})
            direction, statistics = averages[self.section], averages["statistics"].used_up()
            if not lengths.are_one:
                direction = Average(direction.total, lengths.weight / lengths.scale(median=False))
        else:
            total, statistics, slots, figures = self._by_rule(state, updates, cohort, lengths)
            # What a root device has sent is divided by nothing, and by it such a rule goes.
            scale = lengths.scale(median=self.rule.robust) if cohort.root is None else 1.0
            direction = Average(total, 1.0 / scale)
        change, moved = self.optimizer.step(direction, state.slots)
        after, moved_by = state.moved(change, statistics, {**slots, **moved})
        return after, {**moved_by, **figures}

    def weigh(self, update: Update) -> float:
        """The amount for which an update counts."""
        return by_examples(update) if self.weighting in (None, _EXAMPLES) and not self.rule.robust else equally(update)

    def length(self, update: Update) -> float:
        """The number by which an update is divided before the rule, and with whose mean the result is multiplied."""
        return 1.0

    def _by_rule(
        self, state: StrategyState, updates: Updates, cohort: Cohort, lengths: _Lengths
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], dict[str, NDArray[np.float32]], dict[str, float]]:
        columns = updates.columns(self.section)
        weights = np.array([self.weigh(each) for each in columns.facts])
        lengths.note(columns.facts)
        points = Points(columns, weights, cohort.seed)
        if not lengths.are_one:
            points = points.scaled(1 / np.array(lengths.lengths))
        slots: dict[str, NDArray[np.float32]] = {}
        figures: dict[str, float] = {}
        for each in self.pre_aggregation:
            prepared = each.prepare(points, state.slots)
            points = prepared.points
            slots.update(prepared.slots)
            figures.update(prepared.figures)
        rule = self.rule if cohort.root is None else self.rule.rooted(cohort.root.section(self.section))
        found, after = rule.combine(points, state.slots)
        statistics = np.zeros(0)
        if state.weights.size > state.weight_size:
            statistics = self.rule.combine_statistics(Points(updates.columns("statistics"), weights))
        return found, statistics, {**slots, **after}, figures


def _guesses(part: object) -> bool:
    """Whether a part takes a quarter of a fold's devices to be bad, as nobody said how many may be."""
    return getattr(part, "byzantine", 0) is None


class _Lengths:
    """Weighs updates, and notes by what each is divided."""

    def __init__(self, weigh: Weighting, length: Callable[[Update], float]) -> None:
        self._weigh, self._length = weigh, length
        self.lengths: list[float] = []
        self._weights: list[float] = []

    @property
    def are_one(self) -> bool:
        """Whether nothing is divided."""
        return all(each == 1 for each in self.lengths)

    @property
    def weight(self) -> float:
        """The sum of what the updates count for."""
        return sum(self._weights)

    def note(self, updates: tuple[Update, ...]) -> None:
        """Notes the lengths of all updates."""
        for each in updates:
            self(each)

    def __call__(self, update: Update) -> float:
        """The weight of an update that is not divided yet."""
        weight, length = self._weigh(update), self._length(update)
        self.lengths.append(length)
        self._weights.append(weight)
        return weight / length

    def scale(self, *, median: bool) -> float:
        """The number with which the direction is to be multiplied."""
        if self.are_one:
            return 1.0
        middle = float(np.median(self.lengths))
        if median:
            return middle
        believed = np.minimum(self.lengths, _FAR_ABOVE * middle)
        return float(np.sum(np.multiply(self._weights, believed)) / np.sum(self._weights))
