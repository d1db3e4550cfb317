"""The base of strategies: how the updates of a fold become new weights. Pure: values in, values out.

A strategy has two functions (the shape is FedJAX's, Ro et al. 2021): ``init(weights, weight_size) -> state`` and
``apply(state, updates, cohort) -> state, diagnostics``. Its hyperparameters are the fields of its dataclass, each a
`setting`; a run's options, its checks and the documentation derive from them.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from edgefl.algorithms import ALGORITHMS, Algorithm, algorithm
from edgefl.errors import InvalidSettingError, RunError
from edgefl.manifest import ModelManifest
from edgefl.plugins import Registry
from edgefl.wire.vocabulary import Correction, TaskKind
from edgefl_server.aggregation.averaging import pieces
from edgefl_server.aggregation.hyperparameters import check_ranges, parts_of, settings_of
from edgefl_server.aggregation.updates import Update, Updates

__all__ = ["STRATEGIES", "Cohort", "Demand", "Strategy", "StrategyState"]


@dataclass(frozen=True)
class StrategyState:
    """The state that a strategy keeps from fold to fold.

    Attributes:
        weights: float32 ``[size]``: the weight section, then the statistic section.
        weight_size: elements of the weight section.
        slots: further float32 vectors by name, for strategies with a memory; kept and restored like the weights.
    """

    weights: NDArray[np.float32]
    weight_size: int
    slots: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)

    def moved(
        self,
        weights: NDArray[np.float64],
        statistics: NDArray[np.float64],
        slots: Mapping[str, NDArray[np.float32]] = MappingProxyType({}),
    ) -> tuple[StrategyState, dict[str, float]]:
        """The state after a step, and by how much it moved (``update_norm``, L2).

        Args:
            weights: float64 ``[weight_size]``: to be added.
            statistics: float64 ``[size - weight_size]``: likewise; ``[0]``: they stay as they are.
            slots: after the step.

        Raises:
            RunError: one of them has another size.
        """
        sizes = self.weight_size, self.weights.size - self.weight_size
        if weights.shape != sizes[:1] or statistics.shape not in (sizes[1:], (0,)):
            raise RunError(
                f"A step of the strategy expects {sizes[0]} weights and {sizes[1]} statistics (or none), got arrays of "
                f"the shapes {weights.shape} and {statistics.shape}."
            )
        moved, squares = self.weights.copy(), 0.0  # where a device sends no statistics (a gradient), those stay
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and the fold fails
            for start, change in ((0, weights), (self.weight_size, statistics)):
                for part in pieces(change.size):
                    place = slice(start + part.start, start + part.stop)
                    moved[place] = self.weights[place] + change[part]
                    squares += float(np.sum(np.square(change[part])))  # not by a BLAS, as in `weight_norm`
        return StrategyState(moved, self.weight_size, dict(slots)), {"update_norm": math.sqrt(squares)}


@dataclass(frozen=True)
class Cohort:
    """Everything that is known of those who take part, beside their updates.

    Attributes:
        enrolled: devices of the population, N in the papers; 0: not known.
        seed: of what is drawn in the fold; the same for the same fold of a run.
        root: the update of the root device, which is none of the fold's; None: the run has none.
    """

    enrolled: int = 0
    seed: int = 0
    root: Update | None = None

    def size(self, updates: Updates) -> int:
        """N; at least the devices of the fold are counted."""
        return max(self.enrolled, len(updates))


@dataclass(frozen=True)
class Demand:
    """The work that a strategy asks of the devices.

    Attributes:
        needs: which algorithm their side is.
        mu: FedProx's mu or FedDyn's alpha; 0: none.
    """

    needs: Algorithm = field(default_factory=Algorithm)
    mu: float = 0.0

    @property
    def kind(self) -> TaskKind:
        """The kind of the tasks."""
        return self.needs.kind

    @property
    def correction(self) -> Correction:
        """The vector that devices add to the gradient."""
        return self.needs.correction

    @property
    def sections(self) -> tuple[str, ...]:
        """The sections of an outcome; ``statistics`` only where the layout has some."""
        return self.needs.sections

    @property
    def vectors(self) -> tuple[str, ...]:
        """Slots that a task names and its device may fetch."""
        return self.needs.vectors


class Strategy(ABC):
    """The base class of a strategy: a frozen dataclass whose fields are `setting` fields.

    Attributes:
        algorithm: what the devices' side is called in `edgefl.algorithms`; empty: plain training, which all can do.
        summary: what it is for, with its paper; for the documentation.
        model: what it asks of a model file beside its algorithm; for the documentation.
        unused: settings of a run that have no meaning with it, and are refused.
        excluded: settings of a run, or hyperparameters of other strategies, that do not go with it, and why.
        needed: settings of a run that it cannot do without, and why.
        mixes_models: updates are the differences between what devices trained and the newest weights, not those that
            they started from; the two are the same in a synchronous run.
        of_buffers: it is for updates that are merged as they come; a synchronous run with it is refused.
    """

    algorithm: ClassVar[str] = ""
    summary: ClassVar[str] = ""
    model: ClassVar[str] = ""
    unused: ClassVar[tuple[str, ...]] = ()
    excluded: ClassVar[Mapping[str, str]] = MappingProxyType({})
    needed: ClassVar[Mapping[str, str]] = MappingProxyType({})
    mixes_models: ClassVar[bool] = False
    of_buffers: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_ranges(self)

    @property
    def demand(self) -> Demand:
        """Says what the devices are to do."""
        return Demand(algorithm(self.algorithm))

    @property
    def fewest(self) -> int:
        """The updates that a fold needs at least; a run that may fold fewer is refused."""
        return 1

    @property
    def guards_from(self) -> int:
        """The updates of a fold from which on it bears a bad one, where it guesses how many are; 0: it does not."""
        return 0

    @property
    def is_robust(self) -> bool:
        """Whether it makes of single devices' updates something else than their mean."""
        return False

    @property
    def counts_updates(self) -> bool:
        """Whether it judges updates by how many there are, so that a device must not have several in a fold."""
        return self.is_robust

    def settled(self, manifest: ModelManifest, learning_rate: float) -> Strategy:
        """The strategy with what only the model file knows.

        Args:
            manifest: the file's; it can take part in the algorithm.
            learning_rate: of the devices.

        Raises:
            InvalidSettingError: it cannot be used with this file.
        """
        return self

    def init(self, weights: NDArray[np.float32], weight_size: int) -> StrategyState:
        """The state before the first fold.

        Args:
            weights: float32 ``[size]``: the weight section, then the statistic section.
            weight_size: elements of the weight section.
        """
        return StrategyState(weights, weight_size)

    @abstractmethod
    def apply(self, state: StrategyState, updates: Updates, cohort: Cohort) -> tuple[StrategyState, dict[str, float]]:
        """The state after a fold, and figures about it.

        Args:
            state: what the fold starts from; stays as it is.
            updates: at least one, capped and bounded.
            cohort: what is known of those who take part.
        """


def _check(name: str, entry: Any) -> None:
    if not (isinstance(entry, type) and issubclass(entry, Strategy) and "__dataclass_fields__" in vars(entry)):
        raise InvalidSettingError("it is no dataclass that is a Strategy.")
    if inspect.isabstract(entry):
        raise InvalidSettingError(f"{entry.__name__} lacks {', '.join(sorted(entry.__abstractmethods__))}.")
    if entry.algorithm and entry.algorithm not in ALGORITHMS:
        raise InvalidSettingError(
            f"its algorithm expects one of {', '.join(ALGORITHMS)}, or none for plain training, got "
            f"{entry.algorithm!r:.80}."
        )
    known = {each.name for each in settings_of(entry)} | {each.name for each in parts_of(entry)}
    others = [each.name for each in dataclasses.fields(entry) if each.init and each.name not in known]  # type: ignore[arg-type]
    if others:
        raise InvalidSettingError(f"its field {others[0]} is no setting.")
    for each in settings_of(entry):
        if not each.required:
            each.check(each.default, each.possible)


STRATEGIES: Registry[type[Strategy]] = Registry("strategy", "edgefl.strategies", check=_check)
"""All strategies by the name that `--strategy` takes."""
