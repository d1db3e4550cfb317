"""Rows that stay in a file are those that numpy reads, and a file that changes is noticed."""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefl.errors import DataNotReadyError
from edgefl.wire.messages import BatchPolicy
from edgefl_device_runtime.training import batches as batching
from edgefl_device_runtime.training import file_rows
from edgefl_device_runtime.training.batches import BatchBuffers, batches
from edgefl_device_runtime.training.data import Column
from edgefl_device_runtime.training.file_rows import DataFile, FileRows


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rows")


def open_files(folder: Path) -> int:
    """How many files of a folder this process has open, also those that were deleted."""
    links = [str(each.readlink()) for each in Path("/proc/self/fd").iterdir() if each.is_symlink()]
    return sum(link.startswith(str(folder)) for link in links)


def stored(path: Path, array: np.ndarray, before: int = 7) -> FileRows:
    """The array behind some bytes, so that nothing is aligned."""
    path.write_bytes(bytes(before) + array.tobytes())
    return FileRows(DataFile(path), before, array.shape, array.dtype)


@given(
    shape=st.lists(st.integers(1, 5), max_size=2).map(tuple),
    rows=st.integers(1, 200),
    dtype=st.sampled_from(["<f4", ">f8", "u1", "<i8", "?"]),
    piece=st.integers(1, 300),
    wanted=st.lists(st.integers(0, 10**6), min_size=1, max_size=60),
    seed=st.integers(0, 9),
)
def test_rows_in_any_order_are_those_of_the_array(
    folder: Path, shape: Any, rows: int, dtype: str, piece: int, wanted: list[int], seed: int
) -> None:
    array = np.random.default_rng(seed).integers(0, 2, (rows, *shape)).astype(dtype)
    found = stored(folder / "any.bin", array)
    chosen = np.array(wanted, np.intp) % rows
    out = np.empty((len(chosen), *shape), dtype)
    found.reader(out)(chosen)
    np.testing.assert_array_equal(out, array[chosen])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(file_rows, "_PIECE", piece)
        gathered, where = found.gather(chosen)
    np.testing.assert_array_equal(gathered[where], array[chosen])
    np.testing.assert_array_equal(np.asarray(found), array)
    np.testing.assert_array_equal(found[rows // 2 :], array[rows // 2 :])


@pytest.mark.parametrize("policy", [BatchPolicy.PAD, BatchPolicy.DROP, BatchPolicy.REFILL])
@pytest.mark.parametrize("ahead", [0, 1 << 10, 1 << 22])
@pytest.mark.parametrize("dtype", ["<f4", ">f8"])
def test_batches_of_a_file_are_those_of_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, policy: BatchPolicy, ahead: int, dtype: str
) -> None:
    monkeypatch.setattr(batching, "_AHEAD", ahead)
    monkeypatch.setattr(batching, "_SINGLY", 3)
    x, y = np.random.default_rng(0).normal(size=(203, 6)).astype(dtype), np.arange(203)
    order = np.random.default_rng(1).permutation(203)
    filled = []
    for columns in ((x, y), (stored(tmp_path / "x.bin", x), stored(tmp_path / "y.bin", y))):
        given = [Column("x", columns[0], np.dtype(np.float32)), Column("y", columns[1], np.dtype(np.int32))]
        buffers = BatchBuffers(given, {"x": "x", "y": "y"}, 8, divides=True)
        cut = batches(order, 8, 8, policy)
        filled.append([(real, *(each.tobytes() for each in buffers.arrays.values())) for real in buffers.fill(cut)])
    assert filled[0] == filled[1]


@pytest.mark.parametrize("change", ["cut", "grown", "rewritten"])
def test_a_file_that_is_written_to_is_noticed_with_the_next_rows(tmp_path: Path, change: str) -> None:
    path = tmp_path / "x.bin"
    found = stored(path, np.arange(64.0).reshape(16, 4))
    out = np.empty((2, 4))
    found.reader(out)(np.array([15, 3]))
    if change == "cut":
        os.truncate(path, 100)
    elif change == "grown":
        with path.open("ab") as file:
            file.write(b"more")
    else:
        os.utime(path, ns=(1, 1))
    for read in (lambda: found.reader(out)(np.array([15, 3])), lambda: found.gather(np.array([15, 3]))):
        with pytest.raises(DataNotReadyError, match=r"x\.bin was changed .* rename it over the old one"):
            read()


def test_another_file_of_the_same_name_changes_nothing(tmp_path: Path) -> None:
    array = np.arange(64.0).reshape(16, 4)
    found = stored(tmp_path / "x.bin", array)
    (tmp_path / "new").write_bytes(b"something else")
    (tmp_path / "new").replace(tmp_path / "x.bin")
    np.testing.assert_array_equal(np.asarray(found), array)


def test_a_file_is_closed_with_its_last_rows(tmp_path: Path) -> None:
    found = stored(tmp_path / "x.bin", np.zeros((4, 2)))
    views = found.with_row_shape((2, 1))
    del found
    assert open_files(tmp_path) == 1
    gc.disable()
    try:
        del views
        assert open_files(tmp_path) == 0
    finally:
        gc.enable()


def test_no_rows_are_read_for_steps_that_are_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = stored(tmp_path / "x.bin", np.zeros((4000, 2), np.float32))
    asked: list[int] = []
    gather = FileRows.gather
    monkeypatch.setattr(FileRows, "gather", lambda self, rows: asked.append(len(rows)) or gather(self, rows))
    buffers = BatchBuffers([Column("x", found, np.dtype(np.float32))], {"x": "x"}, 8, divides=True)
    filling = buffers.fill(batches(np.random.default_rng(0).permutation(4000), 8, 8, BatchPolicy.PAD))
    for _ in range(64):
        next(filling)
    assert asked == []
    next(filling)
    assert asked == [4000 - 64 * 8]
