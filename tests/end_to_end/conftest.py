from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from real_processes import Fleet


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path)
    yield fleet
    fleet.close()


@pytest.fixture
def write_data(tmp_path: Path) -> Callable[..., Path]:
    """Writes local data for the model ``mlp``: 20 numbers a row, 5 classes that follow from them."""

    def write_data(name: str, rows: int = 35, seed: int = 0, scale: float = 1.0) -> Path:
        random = np.random.default_rng(seed)
        x = (scale * random.normal(size=(rows, 20))).astype(np.float32)
        y = np.argmax(x[:, :5] + x[:, 5:10], axis=1).astype(np.int32)
        path = tmp_path / f"{name}.npz"
        np.savez(path, x=x, y=y)
        return path

    return write_data
