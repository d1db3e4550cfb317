"""The base of rules, and their registry. Pure: values in, values out."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from edgefl.errors import InvalidSettingError
from edgefl.plugins import Registry
from edgefl_server.aggregation.hyperparameters import check_ranges, setting
from edgefl_server.aggregation.points import Points
from edgefl_server.aggregation.updates import FoldError

__all__ = ["RULES", "Rule", "bad_devices", "bad_in"]


class Rule(ABC):
    """The base class of a rule: a frozen dataclass whose fields are `setting` fields.

    Attributes:
        summary: what it is for, with its paper; for the documentation.
        robust: every device counts the same, and a few that send what they like do not decide the result.
    """

    summary: ClassVar[str] = ""
    robust: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_ranges(self)

    @property
    def fewest(self) -> int:
        """The updates that it needs at least."""
        return 1

    def init(self, size: int) -> dict[str, NDArray[np.float32]]:
        """Its slots before the first fold, by name.

        Args:
            size: elements of the weight section.
        """
        return {}

    def rooted(self, root: NDArray[np.float32]) -> Rule:
        """The rule for a fold with an update of the root device; one with a setting ``root_device`` goes by it.

        Args:
            root: float32 ``[size]``, the section of which the rule makes one vector.
        """
        return self

    @abstractmethod
    def combine(
        self, points: Points, slots: Mapping[str, NDArray[np.float32]]
    ) -> tuple[NDArray[np.float64], dict[str, NDArray[np.float32]]]:
        """Makes one vector of several.

        Args:
            points: at least one, in the order of the fold.
            slots: its own among others', as the fold before left them.

        Returns:
            A vector, float64 ``[points.size]``, and its own slots after the fold.

        Raises:
            FoldError: these are too few for it.
        """

    def combine_statistics(self, points: Points) -> NDArray[np.float64]:
        """Makes one change of moving averages of several: a trimmed mean, element by element, of a quarter at each end.

        Distances mean nothing here, as a mean and a variance have other units; and each term lies in its range already.
        """
        return trimmed(points, bad_in(getattr(self, "byzantine", None), len(points), (len(points) - 1) // 2))


def bad_devices() -> Any:
    """The setting f: how many devices of a fold may be bad."""
    return setting(
        None,
        help="How many devices of a fold may be bad",
        shown="a quarter of them, or as many as the rule bears",
        lowest=0,
        highest=1_000_000,
        table="f: a quarter of a fold's devices, or as many as the rule bears, unless given",
    )


def bad_in(given: int | None, count: int, most: int) -> int:
    """The f of a fold.

    Args:
        given: the setting.
        count: updates of the fold.
        most: as many as the rule bears among so many.

    Raises:
        FoldError: it bears none, or fewer than are given.
    """
    if most < 0 or (given is not None and given > most):
        wanted = "any" if given is None else f"{given} bad ones"
        raise FoldError(
            f"{count} updates are too few for the rule to bear {wanted}: with so many it bears {max(most, 0)} at most"
        )
    return min(count // 4, most) if given is None else given


def trimmed(points: Points, cut: int) -> NDArray[np.float64]:
    """The mean of each element without its ``cut`` smallest and largest values, float64 ``[size]``."""
    found = np.empty(points.size)
    for part, rows in points.blocks():
        rows.sort(axis=0)
        # A sum down the columns is in order, whatever the shape.
        found[part] = np.add.reduce(rows[cut : len(rows) - cut], axis=0) / (len(rows) - 2 * cut)
    return found


def _check(name: str, entry: Any) -> None:
    if not (isinstance(entry, type) and issubclass(entry, Rule) and "__dataclass_fields__" in vars(entry)):
        raise InvalidSettingError("it is no dataclass that is a Rule.")
    if inspect.isabstract(entry):
        raise InvalidSettingError(f"{entry.__name__} lacks {', '.join(sorted(entry.__abstractmethods__))}.")


RULES: Registry[type[Rule]] = Registry("rule", "edgefl.rules", check=_check)
"""All rules by the name that `--rule` takes."""
