"""Installs what a test brings as a distribution of its own: modules, and a .dist-info folder with entry points."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from real_processes import Fleet


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes a distribution that every process which is started from now on finds."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]))

    def install(name: str, entry_points: dict[str, dict[str, str]], *modules: Path) -> None:
        info = folder / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        lines = []
        for group, entries in entry_points.items():
            lines += [f"[{group}]", *(f"{key} = {value}" for key, value in entries.items())]
        (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
        for module in modules:
            (folder / module.name).write_bytes(module.read_bytes())

    return install


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path)
    yield fleet
    fleet.close()


@pytest.fixture
def write_data(tmp_path: Path) -> Callable[..., Path]:
    """Writes local data for the model ``mlp``: 20 numbers a row, 5 classes that follow from them."""

    def write_data(name: str, rows: int, seed: int) -> Path:
        random = np.random.default_rng(seed)
        x = random.normal(size=(rows, 20)).astype(np.float32)
        y = np.argmax(x[:, :5] + x[:, 5:10], axis=1).astype(np.int32)
        path = tmp_path / f"{name}.npz"
        np.savez(path, x=x, y=y)
        return path

    return write_data
