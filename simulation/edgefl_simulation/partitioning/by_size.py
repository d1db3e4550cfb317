"""Partitions that look at nothing but how many rows a device gets."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from edgefl.errors import InvalidSettingError
from edgefl_server.aggregation import SettingError
from edgefl_simulation.partitioning.base import (
    PARTITIONERS,
    Partitioner,
    Parts,
    Rows,
    cut_at,
    even_sizes,
    need_devices,
    proportional_sizes,
    shuffled,
)

__all__ = ["Exponential", "IdToSizeFnc", "Iid", "Linear", "Size", "Square"]


@PARTITIONERS.register("iid")
@dataclass(frozen=True)
class Iid(Partitioner):
    """Rows fall at random, as many on each device."""

    summary: ClassVar[str] = "at random, as many rows on each device"

    def cut(self, rows: Rows, devices: int, random: np.random.Generator) -> Parts:
        """See `Partitioner`."""
        count = need_devices(devices, "iid")
        return cut_at(shuffled(np.arange(rows.count), random), even_sizes(rows.count, count))


@PARTITIONERS.register("size")
@dataclass(frozen=True)
class Size(Partitioner):
    """Rows fall at random, on each device as many as it is said.

    Attributes:
        sizes: of each device; what is left over lies nowhere.
    """

    summary: ClassVar[str] = "at random, with the sizes that are given"
    sizes: tuple[int, ...]

    def cut(self, rows: Rows, devices: int, random: np.random.Generator) -> Parts:
        """See `Partitioner`."""
        if devices not in (0, len(self.sizes)):
            raise SettingError(
                f"The partition size names {len(self.sizes)} devices, and there are {devices}.",
                hint="Leave {devices} out, or name as many sizes.",
            )
        if min(self.sizes) < 0 or sum(self.sizes) > rows.count:
            raise InvalidSettingError(f"The sizes add up to {sum(self.sizes)} rows, and there are {rows.count}.")
        return cut_at(shuffled(np.arange(rows.count), random), self.sizes)


@dataclass(frozen=True)
class IdToSizeFnc(Partitioner):
    """Rows fall at random, on each device in proportion to a function of its number. In Python only.

    Attributes:
        size: from the devices' numbers, float64 from 1 ``[devices]``, to their shares, ``[devices]``.
    """

    summary: ClassVar[str] = "at random, in proportion to a function of the device's number"
    size: Callable[[NDArray[np.float64]], NDArray[np.float64]]

    def __repr__(self) -> str:
        # The same in every process, since a run folder's settings hold it.
        return f"IdToSizeFnc({getattr(self.size, '__module__', '')}.{getattr(self.size, '__qualname__', self.size)})"

    def cut(self, rows: Rows, devices: int, random: np.random.Generator) -> Parts:
        """See `Partitioner`."""
        count = need_devices(devices, "id-to-size-fnc")
        shares = np.asarray(self.size(np.arange(1, count + 1, dtype=np.float64)), np.float64)
        if shares.shape != (count,) or not np.isfinite(shares).all() or shares.min() < 0 or not shares.any():
            raise InvalidSettingError(
                f"The partition id-to-size-fnc expects {count} finite shares of at least 0, not all of them 0, got "
                f"shape {shares.shape} from {shares.min() if shares.size else 'nothing'}."
            )
        return cut_at(shuffled(np.arange(rows.count), random), proportional_sizes(rows.count, shares))


class _Growing(Partitioner):
    """Rows fall at random, on each device more than on the one before."""

    @abstractmethod
    def shares(self, numbers: NDArray[np.float64]) -> NDArray[np.float64]:
        """Weighs the devices of such numbers, from 1: they get rows in proportion."""

    def cut(self, rows: Rows, devices: int, random: np.random.Generator) -> Parts:
        """See `Partitioner`."""
        need_devices(devices, type(self).__name__.lower())
        return IdToSizeFnc(self.shares).cut(rows, devices, random)


@PARTITIONERS.register("linear")
@dataclass(frozen=True)
class Linear(_Growing):
    """Device k holds rows in proportion to k."""

    summary: ClassVar[str] = "at random, device k with k times as many rows as the first"

    def shares(self, numbers: NDArray[np.float64]) -> NDArray[np.float64]:
        """See `_Growing`."""
        return numbers


@PARTITIONERS.register("square")
@dataclass(frozen=True)
class Square(_Growing):
    """Device k holds rows in proportion to k²."""

    summary: ClassVar[str] = "at random, device k with k² times as many rows as the first"

    def shares(self, numbers: NDArray[np.float64]) -> NDArray[np.float64]:
        """See `_Growing`."""
        return numbers**2


@PARTITIONERS.register("exponential")
@dataclass(frozen=True)
class Exponential(_Growing):
    """Device k holds rows in proportion to eᵏ."""

    summary: ClassVar[str] = "at random, each device with e times as many rows as the one before"

    def shares(self, numbers: NDArray[np.float64]) -> NDArray[np.float64]:
        """See `_Growing`."""
        grown: NDArray[np.float64] = np.exp(numbers - numbers[-1])
        return grown
