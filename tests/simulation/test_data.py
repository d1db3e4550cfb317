"""Data sets by name, from files and from arrays."""

from __future__ import annotations

import gzip
import importlib.util
import os
import struct
import sys
import types

import numpy as np
import pytest

from edgefl.errors import DataError
from edgefl_simulation import data
from edgefl_simulation.data import fashion_mnist, load_data, vowel

X = np.arange(12, dtype=np.float32).reshape(6, 2)
Y = np.array([0, 1, 2, 0, 1, 2])


@pytest.mark.skipif(importlib.util.find_spec("sklearn") is None, reason="scikit-learn's file is not here")
def test_the_digits_are_images_from_0_to_1_and_fit_a_model_of_64_numbers():
    found = load_data("digits")
    assert found.rows == 1797
    assert found.arrays["x"].shape == (1797, 8, 8, 1)
    assert (found.arrays["x"].min(), found.arrays["x"].max()) == (0, 1)
    assert np.bincount(found.arrays["y"]).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    flat = found.fitted("x", (64,))
    assert flat.arrays["x"].shape == (1797, 64)
    assert found.fitted("x", (7,)).arrays["x"].shape == (1797, 8, 8, 1), (
        "other numbers of pixels are left to be refused"
    )


@pytest.mark.skipif(importlib.util.find_spec("seglearn") is None, reason="seglearn's file is not here")
def test_a_window_of_the_smartwatch_belongs_to_a_person():
    found = load_data("smartwatch")
    assert found.arrays["x"].shape[1:] == (100, 6)
    assert sorted(set(found.owners)) == [f"person-{number:02d}" for number in range(1, 11)]
    assert sorted(set(found.arrays["y"])) == list(range(7))


def test_what_is_not_installed_is_named_with_the_line_that_installs_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match="pip install scikit-learn"):
        load_data("digits")
    with pytest.raises(DataError, match="pip install --no-deps seglearn"):
        load_data("smartwatch")


def write_idx(path, array):
    header = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(gzip.compress(header + array.tobytes()))


def test_fashion_mnist_is_read_from_debian_s_files_and_its_test_images_are_held_out(tmp_path):
    random = np.random.default_rng(1)
    for part, rows in (("train", 5), ("t10k", 3)):
        write_idx(tmp_path / f"{part}-images-idx3-ubyte.gz", random.integers(0, 256, (rows, 28, 28), np.uint8))
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte.gz", random.integers(0, 10, rows, np.uint8))
    found = fashion_mnist.load(tmp_path).fitted("x", (784,))
    assert found.arrays["x"].shape == (5, 784)
    assert found.held_out["x"].shape == (3, 784)
    assert found.arrays["x"].max() <= 1
    assert found.arrays["y"].dtype == np.int32
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(b"not gzip")
    with pytest.raises(DataError, match="dataset-fashion-mnist"):
        fashion_mnist.load(tmp_path)


def test_files_and_arrays_hold_rows_owners_and_what_is_held_out(tmp_path):
    arrays = {"x": X, "y": Y, "id": np.array(["a", "b"] * 3), "test_x": X[:2], "test_y": Y[:2]}
    np.savez(tmp_path / "data.npz", **arrays)
    (tmp_path / "folder").mkdir()
    for name, array in arrays.items():
        np.save(tmp_path / "folder" / f"{name}.npy", array)
    for given in (arrays, tmp_path / "data.npz", str(tmp_path / "folder")):
        found = load_data(given)
        assert {name: array.tolist() for name, array in found.arrays.items()} == {"x": X.tolist(), "y": Y.tolist()}
        assert found.owners.tolist() == ["a", "b"] * 3
        assert found.held_out["y"].tolist() == [0, 1]
    assert load_data((X, Y)).owners is None
    assert load_data({"x": X, "y": Y, "who": Y}, "who").owners.tolist() == Y.tolist()


def test_a_table_has_numbers_and_a_column_of_owners(tmp_path):
    path = tmp_path / "data.csv"
    path.write_text("a,id,y\n1,anna,0\n2.5,bert,1\n")
    found = load_data(path)
    assert found.arrays["a"].tolist() == [1, 2.5]
    assert found.owner_names[found.owners].tolist() == ["anna", "bert"]
    path.write_text("a,who,y\n1,anna,0\n")
    with pytest.raises(DataError, match=r"'who' of .* expects numbers, got 'anna' in line 2"):
        load_data(path)
    path.write_text("a,id,y\n1,anna\n")
    with pytest.raises(DataError, match=r"Line 2 of .* has 2 cells, the header 3"):
        load_data(path)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"x": X, "y": Y[:3]}, "equal numbers of rows"),
        ({"x": X, "y": Y, "test_x": X, "test_y": Y[:1]}, "equal numbers of rows"),
        ({}, "got none"),
        ({"x": X[:0], "y": Y[:0]}, "got none"),
        ((X,), "got tuple"),
        ("digit", "Data sets: digits, fashion-mnist, smartwatch"),
    ],
)
def test_data_that_is_none_is_refused(given, message):
    with pytest.raises(DataError) as caught:
        load_data(given)
    assert message in str(caught.value)


def test_a_file_that_is_no_data_is_refused(tmp_path):
    for name, content in (("x.npz", b"PK"), ("x.csv", b"a\n1\n"), ("x.txt", b"1")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError):
            load_data(tmp_path / name)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no \.npy file"):
        load_data(tmp_path / "empty")
    assert data.NAMED.keys() == {"digits", "fashion-mnist", "smartwatch", "vowel"}


def damaged(folder):
    """Paths of files that are none, each with what is said of it."""
    np.savez(folder / "whole.npz", x=X, y=Y)
    whole = (folder / "whole.npz").read_bytes()
    flipped = bytearray(whole)
    flipped[200] ^= 255
    for name, content in (("empty", b""), ("cut", whole[: len(whole) // 2]), ("flipped", bytes(flipped))):
        (folder / f"{name}.npz").write_bytes(content)
        yield folder / f"{name}.npz", "is not a readable .npz file"
    np.savez(folder / "objects.npz", x=np.array([1, None], object), y=[0, 1])
    yield folder / "objects.npz", "Object arrays cannot be loaded"
    for name in ("cut", "objects", "pipe"):
        (folder / name).mkdir()
    (folder / "cut" / "x.npy").write_bytes(b"")
    yield folder / "cut", "is not a readable .npy file"
    np.save(folder / "objects" / "x.npy", np.array([{}], object))
    yield folder / "objects", "Python objects"
    os.mkfifo(folder / "pipe" / "x.npy")
    yield folder / "pipe", "got a folder, pipe or device"
    for ending in ("csv", "npz", "parquet"):
        os.mkfifo(folder / f"pipe.{ending}")
        yield folder / f"pipe.{ending}", "a pipe or a device"
    np.save(folder / "x.npy", X)
    yield folder / "x.npy", "Put x.npy and y.npy into a folder"
    yield "/dev/null", "a file of another kind"
    yield "a" * 5000 + ".csv", "Cannot read the data"
    yield "a" * 5000, "no data set and no file"
    yield folder / "not there" / "x.csv", "no such file or folder"


def test_what_is_wrong_with_a_file_is_said_and_nobody_waits_for_a_pipe(tmp_path):
    for path, message in damaged(tmp_path):
        with pytest.raises(DataError) as caught:
            load_data(path)
        assert message in str(caught.value), path


@pytest.fixture
def vowels(tmp_path, monkeypatch):
    """What the package rdata makes of the file, as plain columns; the file and the package are Debian's and PyPI's."""
    table = {f"V{number}": np.arange(990) * number / 990 for number in range(2, 11)}
    table["V1"] = [str(number // 66) for number in range(990)]
    table["Class"] = [vowel.VOWELS[number % 11] for number in range(990)]

    def read_rda(file, default_encoding):
        if not file.exists():
            raise FileNotFoundError(file)
        return {"Vowel": table}

    monkeypatch.setitem(sys.modules, "rdata", types.SimpleNamespace(read_rda=read_rda))
    (tmp_path / "Vowel.rda").write_bytes(b"")
    return tmp_path / "Vowel.rda", table


def test_fifteen_people_spoke_eleven_vowels(vowels):
    file, table = vowels
    found = vowel.load(file)
    assert found.arrays["x"].shape == (990, 9)
    assert np.bincount(found.arrays["y"]).tolist() == [90] * 11
    assert len(set(found.owners)) == 15
    assert set(found.owners[:66]) == {"speaker-00"}
    table["Class"][7] = "hoo"
    with pytest.raises(DataError, match="is not the table of vowels"):
        vowel.load(file)
    with pytest.raises(DataError, match="r-cran-mlbench"):
        vowel.load(file.with_name("other.rda"))


def test_without_the_package_that_reads_the_vowels_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "rdata", None)
    with pytest.raises(DataError, match="pip install rdata"):
        load_data("vowel")


@pytest.mark.skipif(
    not vowel.DEBIAN_FILE.exists() or importlib.util.find_spec("rdata") is None, reason="the vowels are not here"
)
def test_the_vowels_of_debian_s_package_are_read():
    found = load_data("vowel")
    assert found.rows == 990
    assert abs(float(found.arrays["x"].mean())) < 1
