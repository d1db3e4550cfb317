from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgefl.errors import DataError
from examples.fashion_mnist.images import load, partition_by_dirichlet, read_idx


def write_idx(path: Path, array: np.ndarray) -> None:
    header = bytes((0, 0, 8, array.ndim)) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    path.write_bytes(gzip.compress(header + array.tobytes()))


@given(array=arrays(np.uint8, st.tuples(*[st.integers(0, 5)] * 3)))
def test_what_is_written_as_idx_is_read_back(array: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("idx") / "array.gz"
    write_idx(path, array)
    np.testing.assert_array_equal(read_idx(path), array)


@pytest.mark.parametrize("damage", ["cut off", "no gzip", "another type", "too long", "header only"])
def test_a_damaged_file_is_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "images.gz"
    whole = bytes((0, 0, 8, 1, 0, 0, 0, 4)) + b"1234"
    content = {
        "cut off": gzip.compress(whole)[:-9],
        "no gzip": whole,
        "another type": gzip.compress(b"\0\0\x0d" + whole[3:]),
        "too long": gzip.compress(whole + b"5"),
        "header only": gzip.compress(whole[:6]),
    }
    path.write_bytes(content[damage])
    with pytest.raises(DataError, match=r"images\.gz"):
        read_idx(path)


def test_images_are_scaled_to_one_and_labels_fit_them(tmp_path: Path) -> None:
    write_idx(tmp_path / "train-images-idx3-ubyte.gz", np.full((3, 28, 28), 255, np.uint8))
    write_idx(tmp_path / "train-labels-idx1-ubyte.gz", np.array([0, 9, 4], np.uint8))
    images, labels = load(tmp_path, "train")
    assert images.shape == (3, 28, 28, 1)
    assert images.dtype == np.float32
    assert images.max() == 1
    assert labels.tolist() == [0, 9, 4]


def test_missing_data_say_where_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="dataset-fashion-mnist"):
        load(tmp_path, "train")


@given(seed=st.integers(0, 2**32 - 1), alpha=st.sampled_from([0.05, 0.5, 100.0]), devices=st.integers(1, 6))
def test_partitions_are_disjoint_and_of_equal_size(seed: int, alpha: float, devices: int) -> None:
    labels = np.random.default_rng(seed).integers(0, 10, 400).astype(np.int32)
    rows = 400 // devices
    parts = partition_by_dirichlet(labels, devices, rows, alpha, seed)
    assert [len(part) for part in parts] == [rows] * devices
    assert len(np.unique(np.concatenate(parts))) == devices * rows


def test_the_same_seed_gives_the_same_partition_and_another_one_does_not() -> None:
    labels = np.arange(1000, dtype=np.int32) % 10
    first, again, other = (partition_by_dirichlet(labels, 3, 100, 0.5, seed) for seed in (1, 1, 2))
    assert all(np.array_equal(*pair) for pair in zip(first, again, strict=True))
    assert not all(np.array_equal(*pair) for pair in zip(first, other, strict=True))


def test_a_small_alpha_makes_devices_less_alike() -> None:
    labels = np.arange(60_000, dtype=np.int32) % 10

    def largest_share(alpha: float) -> float:
        parts = partition_by_dirichlet(labels, 20, 500, alpha, 3)
        return float(np.mean([np.bincount(labels[part], minlength=10).max() / 500 for part in parts]))

    assert largest_share(0.1) > 0.45 > 0.2 > largest_share(1000.0)


def test_more_rows_than_there_are_is_refused() -> None:
    with pytest.raises(DataError, match="need 1200 examples, got 1000"):
        partition_by_dirichlet(np.zeros(1000, np.int32), 3, 400, 0.5, 1)
