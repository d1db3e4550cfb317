"""The emulated devices: who they are, and which rows each of them holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from numpy.typing import NDArray

from edgefl.errors import InvalidSettingError
from edgefl.hashing import sha256
from edgefl.wire.words import is_name, is_random_id
from edgefl_simulation.tables import DEVICES, Rows

__all__ = ["ROOT_DEVICE", "Fleet", "device_id", "device_ids", "device_names"]

ROOT_DEVICE = sha256(b"edgefl root device")[:32]
"""The id of the device that holds the root set."""


@dataclass(frozen=True)
class Fleet:
    """The devices of a simulation.

    Attributes:
        names: their ids, each once: seeds and the order of a fold follow from them.
        offsets: int64 ``[devices + 1]``: device i holds the rows from ``offsets[i]`` up to ``offsets[i + 1]``.
        tests: int64 ``[devices]``: how many of them, the last ones, it keeps for tests.
    """

    names: Sequence[str]
    offsets: NDArray[np.int64]
    tests: NDArray[np.int64]

    def __post_init__(self) -> None:
        if isinstance(self.names, _Made):
            return
        if len(set(self.names)) != len(self.names):
            raise InvalidSettingError("Two devices have one id.")
        wrong = next((name for name in self.names if not is_name(name)), None)
        if wrong is not None:
            raise InvalidSettingError(
                f"A device's id expects letters, digits, dots, dashes and underscores, got {wrong!r:.80}."
            )

    def __len__(self) -> int:
        return len(self.names)

    def rows(self, device: int) -> Rows:
        """The rows that a device trains on."""
        return Rows(DEVICES, int(self.offsets[device]), int(self.offsets[device + 1] - self.tests[device]))

    def all_rows(self, device: int) -> Rows:
        """Everything that a device holds: for a task that says itself how much is kept for tests."""
        return Rows(DEVICES, int(self.offsets[device]), int(self.offsets[device + 1]))

    def test_rows(self, device: int) -> Rows:
        """The rows that a device is tested on: what it keeps for that, else what it trains on."""
        if not self.tests[device]:
            return self.rows(device)
        end = int(self.offsets[device + 1])
        return Rows(DEVICES, end - int(self.tests[device]), end)


class _Made(Sequence[str]):
    """Words that are made when they are asked for: of 100,000 devices only those that take part cost something.

    Args:
        count: how many there are.
        made: the one at a place; all of them differ.
    """

    def __init__(self, count: int, made: Callable[[int], str]) -> None:
        self._numbers, self._made = range(count), made

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        found = self._numbers[index]
        return self._made(found) if isinstance(found, int) else [self._made(each) for each in found]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(other) == len(self) and all(map(str.__eq__, self, other))

    __hash__ = None  # type: ignore[assignment]  # as of a list


def device_names(count: int) -> Sequence[str]:
    """Names that sort like numbers."""
    return _Made(count, "device-{:06d}".format)


def device_ids(names: Sequence[str]) -> Sequence[str]:
    """The ids of emulated devices with these names."""
    if isinstance(names, _Made):
        return _Made(len(names), lambda place: device_id(names[place]))
    return [device_id(name) for name in names]


def device_id(name: str) -> str:
    """The id of an emulated device: its name, if a real device could have it, else 128 bits that follow from it."""
    return name if is_random_id(name) else sha256(f"edgefl device {name}".encode())[:32]
