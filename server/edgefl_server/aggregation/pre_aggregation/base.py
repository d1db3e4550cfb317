"""The base of pre-aggregators, and their registry. Pure: values in, values out."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from edgefl.errors import InvalidSettingError
from edgefl.plugins import Registry
from edgefl_server.aggregation.hyperparameters import check_ranges
from edgefl_server.aggregation.points import Points

__all__ = ["PRE_AGGREGATORS", "PreAggregator", "Prepared"]


@dataclass(frozen=True, eq=False)
class Prepared:
    """The result of a pre-aggregator.

    Attributes:
        points: what the rule gets.
        slots: its own after the fold.
        figures: about what it did, for the diagnostics.
    """

    points: Points
    slots: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    figures: Mapping[str, float] = field(default_factory=dict)


class PreAggregator(ABC):
    """The base class of a pre-aggregator: a frozen dataclass whose fields are `setting` fields.

    Attributes:
        summary: what it is for, with its paper; for the documentation.
    """

    summary: ClassVar[str] = ""

    def __post_init__(self) -> None:
        check_ranges(self)

    def fewest(self, wanted: int) -> int:
        """The updates that it needs at least to leave as many as are wanted after it."""
        return wanted

    def init(self) -> dict[str, NDArray[np.float32]]:
        """Its slots before the first fold, by name."""
        return {}

    @abstractmethod
    def prepare(self, points: Points, slots: Mapping[str, NDArray[np.float32]]) -> Prepared:
        """Makes other points of points.

        Args:
            points: at least one, in the order of the fold.
            slots: its own among others', as the fold before left them.

        Raises:
            FoldError: these are too few for it.
        """


def _check(name: str, entry: Any) -> None:
    if not (isinstance(entry, type) and issubclass(entry, PreAggregator) and "__dataclass_fields__" in vars(entry)):
        raise InvalidSettingError("it is no dataclass that is a PreAggregator.")
    if inspect.isabstract(entry):
        raise InvalidSettingError(f"{entry.__name__} lacks {', '.join(sorted(entry.__abstractmethods__))}.")


PRE_AGGREGATORS: Registry[type[PreAggregator]] = Registry("pre-aggregator", "edgefl.pre_aggregators", check=_check)
"""All pre-aggregators by the name that `--pre-aggregation` takes."""
