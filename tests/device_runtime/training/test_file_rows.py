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

from edgefl.errors import DataError, DataNotReadyError
from edgefl.manifest import ModelManifest, Signature, Target, TensorSpec
from edgefl.wire.messages import BatchPolicy
from edgefl_device_runtime.training import TrainableModel, file_rows
from edgefl_device_runtime.training import batches as batching
from edgefl_device_runtime.training.batches import BatchBuffers, batches
from edgefl_device_runtime.training.data import Column, prepare
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


SPECS = (TensorSpec("image", "image", (4, 2, 2, 1), "float32"), TensorSpec("label", "label", (4,), "int32"))
IMAGES = ModelManifest(
    parameters=(),
    signatures={"train": Signature(SPECS)},
    inputs=("image",),
    outputs=("output",),
    targets=(Target("label", "output", 3),),
    batch_size=4,
)


def prepared(folder: Path, x: np.ndarray, y: np.ndarray) -> Any:
    return prepare(IMAGES, "train", stored(folder / "x.bin", x), stored(folder / "y.bin", y))


def test_rows_of_a_file_are_checked_like_arrays(tmp_path: Path) -> None:
    x, y = np.zeros((9, 2, 2)), np.arange(9) % 3
    data = prepared(tmp_path, x, y[:, np.newaxis])
    assert [column.data.shape for column in data.columns] == [(9, 2, 2, 1), (9,)]
    assert data.rows == 9
    for wrong, message in (
        ((x[:, :1], y), r"expects shape \(rows, 2, 2, 1\), got \(9, 1, 2\)"),
        ((x, y + 1), "whole numbers from 0 to 2, got 3 in row 2"),
        ((x, y[:8]), "same number of rows"),
        ((np.where(np.arange(9)[:, None, None] == 7, np.nan, x), y), "NaN, infinity or an overflow in row 7"),
        ((np.full(x.shape, "a"), y), "expects numbers"),
    ):
        with pytest.raises(DataError, match=message):
            prepared(tmp_path, *wrong)


@pytest.mark.filterwarnings("ignore:The last")
@pytest.mark.parametrize("name", ["federated", "noisy", "normalised"])
def test_a_model_learns_the_same_from_a_file_as_from_memory(
    name: str, request: pytest.FixtureRequest, tmp_path: Path, runtime: str
) -> None:
    random = np.random.default_rng(0)
    x, y = random.normal(size=(45, 20)), random.integers(0, 5, 45)
    weight = random.random(45)
    results = []
    for data in ((x, y, weight), tuple(stored(tmp_path / f"{n}.bin", each) for n, each in enumerate((x, y, weight)))):
        model = TrainableModel(request.getfixturevalue(f"{name}_file"), runtime=runtime)
        history = model.fit(data[0], data[1], sample_weight=data[2], epochs=2, validation_data=data)
        found = [history.history, model.evaluate(*data), model.predict(data[0]).tobytes(), model.weights.tobytes()]
        if model.manifest.has_gradient:
            found.append(model.gradient(*data).vector.tobytes())
        results.append(found)
    assert results[0] == results[1]
