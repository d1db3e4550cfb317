"""Partitions that people made: the rows of one person lie on one device."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edgefl.errors import InvalidSettingError
from edgefl.wire.words import is_name
from edgefl_server.aggregation import SettingError
from edgefl_simulation.partitioning.base import PARTITIONERS, Partitioner, Parts, Rows, cut_at, shuffled

__all__ = ["GroupedNaturalId", "NaturalId", "name_of"]


_LONGEST = 48
"""Letters of an owner's name that a device keeps of it, where it cannot keep all."""


def name_of(owner: str) -> str:
    """The id of an owner's device: its own where that can be one, else its letters and digits with a short hash.

    Ids become names of files and parts of paths, so that ``Zoë`` becomes ``Zo_-c6a12698``.
    """
    if is_name(owner):
        return owner
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", owner)[:_LONGEST].lstrip("._-")
    return f"{plain or 'owner'}-{hashlib.sha256(owner.encode('utf-8', 'replace')).hexdigest()[:8]}"


@PARTITIONERS.register("natural-id")
@dataclass(frozen=True)
class NaturalId(Partitioner):
    """A device for each owner, called as `name_of` says; of more owners than devices, some are drawn."""

    summary: ClassVar[str] = "a device for each owner that the data names"

    def cut(self, rows: Rows, devices: int, random: np.random.Generator) -> Parts:
        """See `Partitioner`."""
        return self._chosen(rows, devices, random)[1]

    def names(self, rows: Rows, devices: int) -> Sequence[str] | None:
        """See `Partitioner`."""
        owners, _ = rows.people("natural-id")
        return [name_of(each) for each in owners] if devices in (0, len(owners)) else None

    def _chosen(self, rows: Rows, devices: int, random: np.random.Generator) -> tuple[Sequence[str], Parts]:
        owners, groups = rows.people("natural-id")
        if devices > len(owners):
            raise SettingError(
                f"There are {devices} devices, and the data has {len(owners)} owners.",
                hint="Leave {devices} out: there is one for each owner.",
            )
        if not devices or devices == len(owners):
            return owners, groups
        drawn = np.sort(shuffled(np.arange(len(owners)), random)[:devices])
        return [owners[number] for number in drawn], [groups[number] for number in drawn]


@PARTITIONERS.register("grouped-natural-id")
@dataclass(frozen=True)
class GroupedNaturalId(Partitioner):
    """So many owners share a device, drawn at random; the last one may have fewer.

    Attributes:
        group_size: owners of a device.
    """

    summary: ClassVar[str] = "so many owners on each device"
    group_size: int

    def cut(self, rows: Rows, devices: int, random: np.random.Generator) -> Parts:
        """See `Partitioner`."""
        owners, groups = rows.people("grouped-natural-id")
        if not 1 <= self.group_size <= len(owners):
            raise InvalidSettingError(
                f"The partition grouped-natural-id expects 1 to {len(owners)} owners a device, got {self.group_size}."
            )
        count = -(-len(owners) // self.group_size)
        if devices not in (0, count):
            raise SettingError(
                f"{len(owners)} owners in groups of {self.group_size} make {count} devices, got {devices}.",
                hint="Leave {devices} out.",
            )
        sizes = [self.group_size] * (count - 1) + [len(owners) - self.group_size * (count - 1)]
        drawn = cut_at(shuffled(np.arange(len(owners)), random), sizes)
        return [np.sort(np.concatenate([groups[number] for number in own])) for own in drawn]
