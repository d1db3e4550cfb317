"""What lies on the devices, as arrays: windows of each role, and those of the play that nobody trains on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from examples.keyboard.plays import UNSEEN_PLAY, roles, speeches
from examples.keyboard.windows import LENGTH, windows

__all__ = ["FleetData", "load_fleet"]

MOST_WINDOWS = 160
"""Of one role: a device's owner has not typed for ever."""
UNSEEN_WINDOWS = 400


@dataclass(frozen=True)
class FleetData:
    """Everything that is typed on the devices.

    Attributes:
        roles: windows of each, by name.
        arrays: as `edgefl.simulate` takes them: ``x``, ``y``, ``id``, ``test_x``, ``test_y``.
        unseen: the text of the play that no device has.
        spelled_today: the words of that play in today's spelling.
    """

    roles: Mapping[str, int]
    arrays: Mapping[str, NDArray[Any]]
    unseen: str
    spelled_today: frozenset[str]

    @property
    def characters(self) -> int:
        """How many are on all devices together."""
        return LENGTH * sum(self.roles.values())


def load_fleet(most: int = MOST_WINDOWS, unseen_windows: int = UNSEEN_WINDOWS) -> FleetData:
    """Reads the roles of the fleet.

    Args:
        most: windows of one role at most.
        unseen_windows: of the unseen play, spread evenly over it.

    Raises:
        DataError: the plays are not installed.
    """
    cut = {name: windows(text, most) for name, text in roles().items()}
    unseen = "\n".join(line for _, line in speeches(UNSEEN_PLAY, folio=True))
    test_x, test_y = windows(unseen)
    kept = np.linspace(0, len(test_x) - 1, min(unseen_windows, len(test_x))).astype(np.int64)
    arrays = {
        "x": np.concatenate([x for x, _ in cut.values()]),
        "y": np.concatenate([y for _, y in cut.values()]),
        "id": np.concatenate([np.full(len(x), name) for name, (x, _) in cut.items()]),
        "test_x": test_x[kept],
        "test_y": test_y[kept],
    }
    today = " ".join(line for _, line in speeches(UNSEEN_PLAY))
    counts = {name: len(x) for name, (x, _) in cut.items()}
    return FleetData(counts, arrays, unseen, frozenset(re.findall("[A-Za-z]+", today)))
