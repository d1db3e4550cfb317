"""Partitioners: which rows fall on which device, by flwr-datasets' names; one comes here to add another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgefl.errors import InvalidSettingError
from edgefl_simulation.fleet import device_names
from edgefl_simulation.partitioning import by_label, by_owner, by_size
from edgefl_simulation.partitioning.base import PARTITIONERS, Partitioner, Parts, Rows, check, generator, parse
from edgefl_simulation.partitioning.by_label import Distribution
from edgefl_simulation.partitioning.by_size import IdToSizeFnc

__all__ = [
    "PARTITIONERS",
    "Distribution",
    "IdToSizeFnc",
    "Partitioner",
    "Parts",
    "Rows",
    "by_label",
    "by_owner",
    "by_size",
    "partition",
]


_MOST_DEVICES = 10_000_000
"""More have no rows in any data set, and finding that out takes as long as there are devices."""


def partition(rows: Rows, text: str | Partitioner, devices: int, seed: int) -> tuple[Sequence[str], Parts]:
    """Gives rows to devices.

    Args:
        rows: what there is.
        text: the partitioner: ``iid``, ``dirichlet:0.5``, …, or a `Partitioner`.
        devices: how many; 0: as many as the partitioner itself says.
        seed: of every choice.

    Returns:
        The devices' ids, and the rows of each.

    Raises:
        InvalidSettingError: there is no such partitioner, or a device would have no rows.
        DataError: the rows lack what it goes by.
    """
    given: Any = devices
    if isinstance(given, bool) or not isinstance(given, (int, np.integer)) or not 0 <= devices <= _MOST_DEVICES:
        raise InvalidSettingError(
            f"The number of devices expects a whole number from 1 to {_MOST_DEVICES:,}, got {devices!r:.80}."
        )
    chosen = parse(text) if isinstance(text, str) else text
    kind: Any = chosen
    if not isinstance(kind, Partitioner):
        raise InvalidSettingError(
            f"Expected a partition's name, or a Partitioner, got {text!r:.80}.", hint="As in iid."
        )
    parts = chosen.cut(rows, devices, generator(seed))
    check(parts, text if isinstance(text, str) else type(text).__name__)
    return chosen.names(rows, devices) or device_names(len(parts)), parts
