from __future__ import annotations

import io
import os
import random
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edgefl.errors import DataError
from edgefl_device_runtime.agent import sources
from edgefl_device_runtime.agent.sources import open_source
from edgefl_device_runtime.training.file_rows import FileRows

X = np.arange(12, dtype=np.float32).reshape(4, 3)
Y = np.array([0, 1, 2, 0])


def test_the_smallest_arrays_of_an_uncompressed_npz_are_held_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "_IN_MEMORY", Y.nbytes)
    np.savez(tmp_path / "d.npz", x=X, y=Y)
    data = open_source(tmp_path / "d.npz")()
    assert isinstance(data["x"], FileRows)
    assert isinstance(data["y"], np.ndarray)
    np.testing.assert_array_equal(data["x"], X)
    np.testing.assert_array_equal(data["y"], Y)


def test_a_compressed_npz_is_read(tmp_path):
    np.savez_compressed(tmp_path / "d.npz", x=X, y=Y)
    np.testing.assert_array_equal(open_source(str(tmp_path / "d.npz"))()["x"], X)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@given(
    array=arrays.arrays(
        st.sampled_from(["<f4", ">f8", "u1", "<i8", "?"]), arrays.array_shapes(min_dims=0, max_dims=4, min_side=0)
    ),
    fortran=st.booleans(),
    in_memory=st.sampled_from([0, 1 << 20]),
)
def test_any_array_of_numbers_comes_back_from_an_npz_and_a_folder(tmp_path, array, fortran, in_memory):
    array = np.asfortranarray(array) if fortran else array
    np.savez(tmp_path / "d.npz", x=array)
    np.save(tmp_path / "x.npy", array)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "_IN_MEMORY", in_memory)
        for path in (tmp_path / "d.npz", tmp_path):
            found = open_source(path)()["x"]
            assert (found.shape, found.dtype, found.ndim) == (array.shape, array.dtype, array.ndim)
            np.testing.assert_array_equal(np.asarray(found), array)


def test_a_folder_of_npy_files_stays_where_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "_IN_MEMORY", Y.nbytes)
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "y.npy", Y)
    data = open_source(tmp_path)()
    assert isinstance(data["x"], FileRows)
    np.testing.assert_array_equal(data["y"], Y)


def test_a_csv_gives_its_columns_by_name(tmp_path):
    (tmp_path / "d.csv").write_text('\ufeffwidth,"height",kind\n1,2.5,0\n"3",4e1,1\n', encoding="utf-8")
    data = open_source(tmp_path / "d.csv")()
    assert list(data) == ["width", "height", "kind"]
    np.testing.assert_array_equal(data["height"], [2.5, 40.0])


def test_a_csv_without_rows_is_empty(tmp_path):
    (tmp_path / "d.csv").write_text("a,b\n")
    assert [len(column) for column in open_source(tmp_path / "d.csv")().values()] == [0, 0]


def test_files_that_change_are_read_again(tmp_path):
    np.savez(tmp_path / "d.npz", x=X, y=Y)
    source = open_source(tmp_path / "d.npz")
    first = source()
    assert source() is first
    np.savez(tmp_path / "d.npz", x=X[:2], y=Y[:2])
    assert len(source()["x"]) == 2


def test_a_function_of_a_module_in_the_current_folder_is_called_for_every_task(tmp_path, monkeypatch):
    (tmp_path / "my_sensor.py").write_text("calls = []\ndef read():\n    calls.append(1)\n    return [[1.0]], calls\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    source = open_source("my_sensor:read")
    assert len(source()["y"]) == 1
    assert len(source()["y"]) == 2
    sys.modules.pop("my_sensor")


@pytest.mark.parametrize("data", [(X, Y), [X, Y], {"x": X, "y": Y}, lambda: (X, Y), ({"x": X}, {"y": Y}), (X, Y, None)])
def test_arrays_may_be_given_directly(data):
    found = open_source(data)()
    assert set(found) == {"x", "y"}
    np.testing.assert_array_equal(found["x"], X)


def test_sample_weights_come_third():
    np.testing.assert_array_equal(open_source((X, Y, Y))()["sample_weight"], Y)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("d.npz", b"no zip", "not a readable .npz"),
        ("d.csv", b"", "at least two different column names"),
        ("d.csv", b"a,a\n1,2\n", "at least two different column names"),
        ("d.csv", b"a,b\n1,cat\n", "not a number"),
        ("d.csv", b"a,b\n1,2,3\n", "2 column names and 3 columns"),
        ("d.csv", b"a,b\n1,2\n3\n", "not a number"),
        ("d.csv", b"a,b\n1,\xff\n", "not a number"),
        ("d.csv", b"a" * 200_000 + b",b\n1,2\n", "not a number"),
        ("d.txt", b"", "a file of another kind"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        open_source(tmp_path / name)()
    assert name in str(caught.value)


@pytest.mark.parametrize("name", ["d.npz", "d.csv", "folder/x.npy"])
@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_what_is_no_file_is_refused_instead_of_waited_for_or_read_without_end(tmp_path, name, kind):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif path.parent == tmp_path:
        pytest.skip("a folder of .npy files may have any name")
    else:
        path.mkdir()
    with pytest.raises(DataError, match="Expected a file"):
        open_source(path if path.parent == tmp_path else path.parent)()


def damaged(data: bytes, draw: random.Random) -> bytes:
    """A few other bytes, or an end too early."""
    if draw.random() < 0.1:
        return data[: draw.randrange(len(data))]
    found = bytearray(data)
    for _ in range(draw.choice([1, 1, 2, 20])):
        found[draw.randrange(len(found))] = draw.choice([0, 255, draw.randrange(256)])
    return bytes(found)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", ["npz", "compressed npz", "npy", "csv"])
def test_whatever_a_disk_makes_of_a_file_is_a_data_error(tmp_path, kind):
    buffer = io.BytesIO()
    if kind == "csv":
        buffer.write(b"a,b,c\n" + b"1.5,2,3\n" * 20)
    else:
        save = {"npz": np.savez, "compressed npz": np.savez_compressed, "npy": np.save}[kind]
        save(buffer, X)
    path = tmp_path / {"csv": "d.csv", "npy": "x.npy"}.get(kind, "d.npz")
    draw, refused = random.Random(0), 0
    for _ in range(600):
        path.write_bytes(damaged(buffer.getvalue(), draw))
        try:
            open_source(tmp_path if kind == "npy" else path)()
        except (DataError, MemoryError):  # a header may claim any shape
            refused += 1
    assert refused > 50


@pytest.mark.parametrize("data", ["nothing.npz", "no/such/folder", "nothing.csv"])
def test_a_missing_file_is_found_out_at_once(data):
    with pytest.raises(DataError, match="no such file"):
        open_source(data)


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"x\.npy and y\.npy"):
        open_source(tmp_path)()


def test_pickled_objects_are_not_loaded(tmp_path):
    np.savez(tmp_path / "d.npz", x=np.array([{}], dtype=object))
    np.save(tmp_path / "x.npy", np.array([{}], dtype=object))
    with pytest.raises(DataError):
        open_source(tmp_path / "d.npz")()
    with pytest.raises(DataError):
        open_source(tmp_path)()


def test_a_cut_npz_is_refused(tmp_path):
    np.savez(tmp_path / "d.npz", x=X)
    data = (tmp_path / "d.npz").read_bytes()
    (tmp_path / "d.npz").write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match="not a readable"):
        open_source(tmp_path / "d.npz")()


@pytest.mark.parametrize(("name", "message"), [("no_such_module:f", "no_such_module"), ("json:nothing", "no function")])
def test_a_function_that_does_not_exist_is_named(name, message, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(DataError, match=message):
        open_source(name)


@pytest.mark.parametrize("data", [3, (X,), lambda: X])
def test_something_else_than_arrays_is_refused(data):
    with pytest.raises(DataError, match="mapping of names to arrays"):
        open_source(data)()
