"""The emulated devices: who they are, and which rows each of them holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgefl.errors import InvalidSettingError
from edgefl.hashing import sha256
from edgefl.wire.words import is_name, is_random_id
from edgefl_simulation.tables import DEVICES, Rows

__all__ = ["Fleet", "device_id", "device_names"]


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

    def test_rows(self, device: int) -> Rows:
        """The rows that a device is tested on: what it keeps for that, else what it trains on."""
        if not self.tests[device]:
            return self.rows(device)
        end = int(self.offsets[device + 1])
        return Rows(DEVICES, end - int(self.tests[device]), end)


def device_id(name: str) -> str:
    """The id of an emulated device: its name, if a real device could have it, else 128 bits that follow from it."""
    return name if is_random_id(name) else sha256(f"edgefl device {name}".encode())[:32]


def device_names(count: int) -> list[str]:
    """Names that sort like numbers."""
    return [f"device-{number:06d}" for number in range(count)]
