"""CSV and Parquet: whose a row is, which columns are features and target, and what is said of what is wrong."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefl.errors import DataError, MissingDependencyError
from edgefl_simulation.data import conventional, load_data, spool

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

TABLE = {
    "age": [31, 42, 53, 64],
    "weight": [60.5, 71.0, 82.5, 93.0],
    "city": ["Rome", "Oslo", "Rome", "Bonn"],
    "ill": [0, 1, 1, 0],
    "id": ["anna", "bert", "anna", "carl"],
}


def write_csv(path, table):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(table)
        writer.writerows(zip(*table.values(), strict=True))
    return path


def write_parquet(path, table, at_once=2):
    pq.write_table(pa.table(table), path, row_group_size=at_once)
    return path


WRITERS = [pytest.param(write_csv, "csv", id="csv"), pytest.param(write_parquet, "parquet", id="parquet")]
NUMBERS = {name: column for name, column in TABLE.items() if name != "city"}


@pytest.mark.parametrize(("write", "ending"), WRITERS)
def test_a_table_has_columns_by_name_and_owners(tmp_path, write, ending):
    found = load_data(write(tmp_path / f"table.{ending}", NUMBERS))
    assert {name: column.tolist() for name, column in found.arrays.items()} == {
        name: NUMBERS[name] for name in ("age", "weight", "ill")
    }
    assert found.owner_names[found.owners].tolist() == TABLE["id"]
    assert found.owner_names.tolist() == ["anna", "bert", "carl"]


@pytest.mark.parametrize(("write", "ending"), WRITERS)
def test_features_and_target_are_chosen_in_the_order_that_is_asked_for_and_the_rest_is_not_read(
    tmp_path, write, ending
):
    path = write(tmp_path / f"table.{ending}", TABLE)
    found = load_data(path, features=("weight", "age"), target="ill")
    assert list(found.arrays) == ["weight", "age", "y"]
    assert found.arrays["y"].tolist() == TABLE["ill"]
    assert found.owner_names[found.owners].tolist() == TABLE["id"], "the owner is read without being asked for"
    assert list(load_data(path, features="age", target="ill").arrays) == ["x", "y"]
    by_city = load_data(path, "city", features=["age"], target="ill")
    assert by_city.owner_names[by_city.owners].tolist() == TABLE["city"]


@pytest.mark.parametrize(("write", "ending"), WRITERS)
def test_a_column_of_text_is_named_with_what_it_holds(tmp_path, write, ending):
    path = write(tmp_path / f"table.{ending}", TABLE)
    with pytest.raises(DataError, match=r"The column 'city' of .* expects numbers, got .*'?Rome'? ?in (line 2|row 0)"):
        load_data(path)
    with pytest.raises(DataError, match=r"'Rome' in (line 2|row 0)"):
        load_data(path, features=("age", "city"), target="ill")


@pytest.mark.parametrize(("write", "ending"), WRITERS)
@pytest.mark.parametrize(
    ("features", "target", "message"),
    [
        (("age", "wight"), "ill", "has no array or column 'wight'; it holds"),
        (("age",), "sick", "has no array or column 'sick'"),
        (("age", "age"), "ill", "Expected different names"),
        (("age", "ill"), "ill", "Expected different names"),
        (("age", "id"), "ill", "'id' says whose each row is"),
        (("age",), "id", "'id' says whose each row is"),
    ],
)
def test_columns_that_are_not_there_or_stand_twice_are_refused(tmp_path, write, ending, features, target, message):
    with pytest.raises(DataError, match=message):
        load_data(write(tmp_path / f"table.{ending}", NUMBERS), features=features, target=target)


@pytest.mark.parametrize(("write", "ending"), WRITERS)
def test_owners_that_somebody_names_have_to_be_there_whatever_else_is_wrong(tmp_path, write, ending):
    columns = {"id": ["north", "south"], "age": [1, 2], "sick": [0, 1]}
    write(tmp_path / f"t.{ending}", columns)
    with pytest.raises(DataError, match="no array or column 'clinic'; it holds id, age, sick"):
        load_data(tmp_path / f"t.{ending}", "clinic")
    with pytest.raises(DataError, match="it holds age, sick, and 'id', which says whose each row is"):
        load_data(tmp_path / f"t.{ending}", target="ill")
    with pytest.raises(DataError, match="no array or column 'clinic'"):
        load_data({**columns, "id": np.array(columns["id"])}, "clinic")


def test_a_name_that_is_almost_there_is_suggested(tmp_path):
    with pytest.raises(DataError, match="Did you mean weight"):
        load_data(write_csv(tmp_path / "table.csv", NUMBERS), features=("wieght",), target="ill")


def test_features_that_are_called_x_and_y_are_not_taken_for_all_inputs_and_the_target(tmp_path):
    path = write_csv(tmp_path / "table.csv", {"x": [1, 2], "y": [3, 4], "kind": [0, 1]})
    found = load_data(path, features=("x", "y"), target="kind")
    assert {name: column.tolist() for name, column in found.arrays.items()} == {
        "column x": [1, 2],
        "column y": [3, 4],
        "y": [0, 1],
    }


@pytest.mark.parametrize(
    ("names", "target"), [("a b c", "c"), ("a y c", "y"), ("label a b", "label"), ("a target sample_weight", "target")]
)
def test_without_a_word_the_target_is_called_like_one_or_is_the_last_column(names, target):
    arrays = {name: np.full(3, place) for place, name in enumerate(names.split())}
    found = conventional(load_data(arrays))
    assert found.arrays["y"].tolist() == arrays[target].tolist()
    assert list(found.arrays)[-1] == "y", "where a device looks for it in a table"


def test_two_arrays_of_any_names_are_input_and_target_where_one_is_called_like_a_target():
    found = conventional(load_data({"image": np.zeros((3, 4, 4)), "label": np.arange(3)}))
    assert found.arrays["x"].shape == (3, 4, 4)
    assert found.arrays["y"].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("a,b\n", "has a header and no rows"),
        ("a,b\n\n\n", "has a header and no rows"),
        ("a\n1\n", "at least two different names"),
        ("a,b,a\n1,2,3\n", "'a' twice"),
        ("a,,b\n1,2,3\n", "Column 2 of .* has no name"),
        ("a,b\n1,2\n3\n", "Line 3 of .* has 1 cells, the header 2"),
        ("a,b\n1,2\n3,4,5\n", "Line 3 of .* has 3 cells"),
        ("a,b\n1,\n", "got an empty cell in line 2"),
        ("a,b\n1,2\n\n3,x\n", "'b' of .* got 'x' in line 4"),
        ("a;b\n1;2\n", "at least two different names"),
        ("a,b\n1,2\0\n", r"in line 2"),
        (f"a,b\n1,{'2' * 200_000}\n", "Line 2 of .* is no line of a CSV"),
    ],
)
def test_what_is_wrong_with_a_csv_is_said_with_its_line(tmp_path, content, message):
    path = tmp_path / "table.csv"
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        load_data(path)


def test_a_csv_in_another_encoding_or_of_bytes_is_refused_and_a_byte_order_mark_is_no_part_of_a_name(tmp_path):
    path = tmp_path / "table.csv"
    path.write_bytes("a,b\n1,2\n".encode("utf-16"))
    with pytest.raises(DataError, match="UTF-8"):
        load_data(path)
    path.write_bytes("\ufeffa,b\r\n1,2\r\n".encode())
    assert list(load_data(path).arrays) == ["a", "b"]


def test_what_is_wrong_with_parquet_is_said_with_column_and_row(tmp_path):
    path = tmp_path / "table.parquet"
    write_parquet(path, {"a": [1, 2, None, 4], "b": [0, 1, 0, 1]})
    with pytest.raises(DataError, match=r"'a' of .* got nothing \(null\) in row 2"):
        load_data(path)
    write_parquet(path, {"x": [[1.0, 2.0], [3.0, 4.0], [5.0]], "y": [0, 1, 0]})
    with pytest.raises(DataError, match=r"changes from row 2 on|lists of one length"):
        load_data(path)
    pq.write_table(pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"]), path)
    with pytest.raises(DataError, match="'a' twice"):
        load_data(path)
    pq.write_table(pa.table({"a": pa.array([], pa.int64()), "b": pa.array([], pa.int64())}), path)
    with pytest.raises(DataError, match="has no rows"):
        load_data(path)
    for content in (b"", b"PAR1", b"PAR1" + bytes(64) + b"PAR1"):
        path.write_bytes(content)
        with pytest.raises(DataError, match="Cannot read the Parquet file"):
            load_data(path)
    write_parquet(path, {"when": pa.array([0, 1], pa.timestamp("s")), "y": [0, 1]})
    with pytest.raises(DataError, match=r"'when' of .* expects numbers, got timestamp\[ms\]"):
        load_data(path)


def test_parquet_holds_lists_categories_and_ids_of_any_kind(tmp_path):
    table = {
        "x": [[[1.0, 2.0], [3.0, 4.0]]] * 3,
        "fixed": pa.array([[1, 2, 3]] * 3, pa.list_(pa.int8(), 3)),
        "kind": pa.array([7, 8, 7]).dictionary_encode(),
        "true": [True, False, True],
        "price": pa.array([1, 2, 3], pa.decimal128(5, 2)),
        "y": [0, 1, 0],
        "id": pa.array([30, 4, None], pa.int32()),
    }
    found = load_data(write_parquet(tmp_path / "table.parquet", table))
    assert found.arrays["x"].shape == (3, 2, 2)
    assert found.arrays["fixed"].tolist() == [[1, 2, 3]] * 3
    assert found.arrays["kind"].tolist() == [7, 8, 7]
    assert found.arrays["true"].tolist() == [True, False, True]
    assert found.arrays["price"].tolist() == [1, 2, 3]
    assert sorted(found.owner_names[found.owners].tolist()) == ["", "30", "4"]


def test_a_folder_of_parquet_files_is_one_table_and_all_of_them_know_owners_or_none(tmp_path):
    for number in range(3):
        write_parquet(tmp_path / f"part-{number}.parquet", {"a": [number, number], "y": [0, 1], "id": ["p", "q"]})
    assert load_data(tmp_path).arrays["a"].tolist() == [0, 0, 1, 1, 2, 2]
    write_parquet(tmp_path / "part-3.parquet", {"a": [3], "y": [0]})
    with pytest.raises(DataError, match=r"in all files of .* or in none; part-3.parquet differs"):
        load_data(tmp_path)
    write_parquet(tmp_path / "part-3.parquet", {"a": [0.5], "y": [0], "id": ["p"]})
    with pytest.raises(DataError, match=r"'a' of .* changes from row 6 on"):
        load_data(tmp_path)


def test_without_pyarrow_it_is_said_what_installs_it(tmp_path, monkeypatch):
    path = write_parquet(tmp_path / "table.parquet", NUMBERS)
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(MissingDependencyError, match=r"edgefl-toolkit\[tables\]"):
        load_data(path)


def lies_in_a_file(array):
    while array is not None and not isinstance(array, np.memmap):
        array = array.base
    return array is not None


def write_large_parquet(path, table):
    return write_parquet(path, table, 700)


@pytest.mark.parametrize(("write", "ending"), [(write_csv, "csv"), (write_large_parquet, "parquet")])
def test_a_table_larger_than_what_stays_in_memory_is_read_the_same(tmp_path, monkeypatch, write, ending):
    rows = 5_000
    random = np.random.default_rng(1)
    table = {f"column {number}": random.normal(size=rows) for number in range(6)}
    table |= {"y": random.integers(0, 5, rows), "id": np.array([f"person-{each % 900:04}" for each in range(rows)])}
    path = write(tmp_path / f"table.{ending}", table)
    monkeypatch.setattr(spool, "IN_MEMORY", 1 << 10)
    found = load_data(path, features=[*table][:6], target="y")
    assert all(np.array_equal(found.arrays[name], table[name]) for name in [*table][:6])
    assert np.array_equal(found.arrays["y"], table["y"])
    assert np.array_equal(found.owner_names[found.owners], table["id"])
    assert all(map(lies_in_a_file, [*found.arrays.values(), found.owners]))


def test_a_large_archive_passes_through_a_file_and_keeps_its_bits(tmp_path, monkeypatch):
    random = np.random.default_rng(1)
    x, y = random.normal(size=(3000, 7, 5)), np.asfortranarray(random.integers(0, 9, (3000, 4)))
    np.savez_compressed(tmp_path / "data.npz", x=x, y=y, id=np.arange(3000) % 7)
    monkeypatch.setattr(spool, "IN_MEMORY", 1 << 12)
    monkeypatch.setattr("edgefl_simulation.data.files.IN_MEMORY", 1 << 12)
    found = load_data(tmp_path / "data.npz")
    assert np.array_equal(found.arrays["x"], x)
    assert np.array_equal(found.arrays["y"], y)
    assert lies_in_a_file(found.arrays["x"])


@given(st.lists(st.lists(st.integers(-100, 100), min_size=0, max_size=5), max_size=6), st.integers(0, 60))
def test_a_spool_is_all_its_pieces_wherever_it_lies(pieces, in_memory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spool, "IN_MEMORY", in_memory)
        found = spool.Spool()
        for piece in pieces:
            found.add(np.array(piece, np.int32))
        assert found.array().tolist() == [each for piece in pieces for each in piece]
