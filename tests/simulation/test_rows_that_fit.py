"""What is said of data that does not fit the model: which array or column, which row, and what to do."""

from __future__ import annotations

import csv

import numpy as np
import pytest

import edgefl
from edgefl.errors import DataError, InvalidSettingError
from edgefl.manifest import ModelManifest
from edgefl.model_file import ModelFile
from edgefl_simulation import partition_data
from edgefl_simulation.data import DataSet, fitted_to, load_data
from edgefl_simulation.fleet import device_ids
from edgefl_simulation.preparing import Division, prepare_fleet
from edgefl_simulation.tables import Tables

ROWS = 60


@pytest.fixture
def manifest(plain_sgd_file) -> ModelManifest:
    return ModelFile.read(plain_sgd_file).manifest


def prepared(data, manifest, folder, division=None, **columns):
    found = load_data(data, **columns)
    return prepare_fleet(found, manifest, division or Division("iid", 3), folder)


def arrays(**changed):
    random = np.random.default_rng(1)
    found = {"x": random.normal(size=(ROWS, 20)), "y": random.integers(0, 5, ROWS), "id": np.arange(ROWS) % 4}
    return {**found, **changed}


def with_one(array, place, value):
    array = np.array(array)
    array[place] = value
    return array


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"x": with_one(arrays()["x"], (17, 3), np.nan)}, r"Input .* finite float32 .* in row 17"),
        ({"x": with_one(arrays()["x"], (17, 3), 1e39)}, r"Input .* overflow in row 17"),
        ({"x": arrays()["x"][:, :19]}, r"Input .* expects shape \(rows, 20\), got \(60, 19\)"),
        ({"y": with_one(arrays()["y"], 33, 5)}, r"Target .* from 0 to 4, got 5 in row 33"),
        ({"y": with_one(arrays()["y"], 33, -1)}, r"got -1 in row 33"),
        ({"y": arrays()["y"] + 0.5}, r"Target .* whole numbers, got .*\.5 in row 0"),
        ({"y": np.eye(5)[arrays()["y"]]}, r"turn one-hot rows into them with y.argmax"),
        ({"y": arrays()["y"][:59]}, r"equal numbers of rows"),
        ({"y": arrays()["y"].astype(str)}, r"The array 'y' of the data expects numbers, got text: '\d' in row 0"),
        ({"x": [*arrays()["x"].tolist()[:-1], [1.0]]}, r"'x' of the data .* \(20,\) in row 0 and \(1,\) in row 59"),
        ({"sample_weight": with_one(np.ones(ROWS), 9, -1)}, r"sample_weight must not be negative, got -1 in row 9"),
        ({"test_x": arrays()["x"][:5, :3], "test_y": arrays()["y"][:5]}, r"held-out data .* got \(5, 3\)"),
        ({"test_x": arrays()["x"][:5]}, r"held-out data does not fit the model: The model expects an array"),
    ],
)
def test_the_array_and_the_row_are_named_before_anything_is_written(manifest, tmp_path, changed, message):
    with pytest.raises(DataError, match=message):
        prepared(arrays(**changed), manifest, tmp_path / "tables")
    assert list(tmp_path.iterdir()) == []


def table(folder, change=None, names=None):
    """A CSV of 20 features, a target and owners; `change` is called with its cells by name."""
    given = arrays()
    cells = {f"f{number}": column.tolist() for number, column in enumerate(given["x"].T)}
    cells |= {"kind": given["y"].tolist(), "id": given["id"].tolist()}
    if change:
        change(cells)
    with (folder / "data.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(names or list(cells))
        writer.writerows(zip(*cells.values(), strict=True))
    return folder / "data.csv"


def test_columns_become_rows_of_the_input_and_the_last_one_the_target(manifest, tmp_path):
    fleet = prepared(table(tmp_path), manifest, tmp_path / "tables", Division("natural-id", held_out=0)).fleet
    assert fleet.names == device_ids(["0", "1", "2", "3"])
    rows = Tables(tmp_path / "tables").read(fleet.rows(1))
    own = arrays()["id"] == 1
    assert np.allclose(rows[manifest.inputs[0]], arrays()["x"][own])
    assert rows[manifest.targets[0].name].tolist() == arrays()["y"][own].tolist()


def test_it_is_said_from_where_rows_are_counted_which_in_a_file_are_lines(manifest, tmp_path):
    with pytest.raises(DataError, match=r"in row 17") as caught:
        prepared(arrays(x=with_one(arrays()["x"], (17, 3), np.nan)), manifest, tmp_path)
    assert str(caught.value.hint).endswith("Rows are counted from 0, a header is none.")
    with pytest.raises(DataError, match="expects shape") as caught:
        prepared(arrays(x=arrays()["x"][:, :7]), manifest, tmp_path)
    assert "counted" not in str(caught.value.hint)


def test_of_several_arrays_that_could_be_the_input_it_is_said_how_to_name_one(manifest, tmp_path):
    given = arrays()
    data = {"image": given["x"], "writer": given["id"], "y": given["y"]}
    with pytest.raises(DataError, match=r"model's input .*holds image, writer beside") as caught:
        prepared(data, manifest, tmp_path)
    assert "--feature-columns), as in image." in str(caught.value.hint)
    assert "--owner" in str(caught.value.hint)
    prepared(data, manifest, tmp_path, owner="writer")


def test_features_go_into_the_input_in_the_order_in_which_they_are_named(manifest, tmp_path):
    names = [f"f{number}" for number in range(19, -1, -1)]
    data = fitted_to(load_data(table(tmp_path), features=names, target="kind"), manifest)
    assert np.allclose(data.arrays["x"], arrays()["x"][:, ::-1])
    assert data.arrays["x"].dtype == np.float32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda cells: cells["f3"].__setitem__(7, float("nan")), r"The column 'f3' .* got nan in row 7"),
        (lambda cells: cells["f3"].__setitem__(7, "1e39"), r"The column 'f3' expects finite float32 .* row 7"),
        (lambda cells: cells["kind"].__setitem__(7, 9), r"Target .* from 0 to 4, got 9.0 in row 7"),
        (lambda cells: cells.pop("f3"), r"expects 20 numbers a row, and the table has 19 columns"),
        (lambda cells: cells["f3"].__setitem__(7, "cold"), r"The column 'f3' of .* got 'cold' in line 9"),
    ],
)
def test_the_column_of_a_table_is_named(manifest, tmp_path, change, message):
    with pytest.raises(DataError, match=message):
        prepared(table(tmp_path, change), manifest, tmp_path / "tables")
    assert not (tmp_path / "tables").exists()


@pytest.mark.parametrize(
    ("ids", "names"),
    [
        (["bert", "anna"], ["anna", "bert"]),
        ([30, 7], ["7", "30"]),
        ([2.0, 1.0], ["1", "2"]),
        ([b"anna", b"bert"], ["anna", "bert"]),
        (["a/../b", "Zoë"], ["Zo_-c6a12698", "a_.._b-900ea8b7"]),
        (["../etc", "*"], ["etc-f7f9121f", "owner-684888c0"]),
        (["x" * 200, "x" * 201], ["x" * 48 + "-aa20c23e", "x" * 48 + "-84a0678c"]),
    ],
)
def test_owners_become_names_that_files_can_have_and_stay_apart(ids, names):
    owned = arrays(id=np.array(ids)[np.arange(ROWS) % 2])
    found = partition_data(owned, partition="natural-id", held_out=0)
    assert sorted(found.divided.names) == sorted(names)
    assert found.holdings.sizes.tolist() == [ROWS // 2] * 2


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (["anna", "", "bert"], r"got none in row 1 and in 19 more"),
        (["anna", "  ", "bert"], r"got none in row 1"),
        ([1.0, np.nan, 2.0], r"got none in row 1"),
        ([1.0, 1.5, 2.0], r"got 1.5, which is a quantity, in row 1"),
        ([1.0, np.inf, 2.0], r"got inf, which is a quantity, in row 1"),
        (["anna", None, "bert"], r"got none in row 1"),
    ],
)
def test_a_row_that_is_nobody_s_is_named_where_owners_are_asked_for(manifest, tmp_path, ids, message):
    owned = arrays(id=np.array(ids, None)[np.arange(ROWS) % 3])
    with pytest.raises(DataError, match=message):
        prepared(owned, manifest, tmp_path / "tables", Division("natural-id", held_out=0))
    prepared(owned, manifest, tmp_path / "tables", Division("iid", 3))


def test_a_row_that_is_nobody_s_is_named_by_its_number_in_the_data_whatever_is_held_out(manifest, tmp_path):
    ids = np.full(ROWS, "anna")
    ids[ROWS - 20 :] = ""
    for seed in range(1, 4):
        with pytest.raises(DataError, match=r"in row 4\d and in 1\d more"):
            prepared(arrays(id=ids), manifest, tmp_path, Division("natural-id", held_out=0.3, seed=seed))


def test_a_partition_that_leaves_a_device_empty_is_refused_before_anything_is_written(manifest, tmp_path):
    with pytest.raises(InvalidSettingError, match="leaves 6 of 60 devices with no rows; the first is number 54"):
        prepared(arrays(), manifest, tmp_path / "tables", Division("iid", 60))
    assert not (tmp_path / "tables").exists()


def test_a_model_with_several_inputs_takes_columns_and_arrays_by_their_names(two_inputs_file, tmp_path):
    manifest = ModelFile.read(two_inputs_file).manifest
    shapes = {spec.name: tuple(spec.shape[1:]) for spec in manifest.signatures["train"].inputs}
    given = {name: np.ones((ROWS, *shapes[name]), np.float32) for name in manifest.inputs}
    given |= {target.output: np.zeros((ROWS, *shapes[target.name]), np.float32) for target in manifest.targets}
    assert prepare_fleet(DataSet(given), manifest, Division("iid", 3), tmp_path / "tables").held_out == 6
    del given[manifest.inputs[1]]
    with pytest.raises(DataError, match=f"expects an array '{manifest.inputs[1]}'"):
        prepare_fleet(DataSet(given), manifest, Division("iid", 3), tmp_path / "tables")


def test_a_simulation_learns_from_a_csv_with_owners_and_says_which_columns_in_its_settings(plain_sgd_file, tmp_path):
    path = table(tmp_path)
    history = edgefl.simulate(
        plain_sgd_file, path, partition="natural-id", rounds=2, cohort=2, workers=1, target_column="kind",
        feature_columns=[f"f{number}" for number in range(20)], out=tmp_path / "run", evaluate_devices=0,
    )  # fmt: skip
    assert len(history.rounds) == 2
    settings = (tmp_path / "run" / "settings.json").read_text()
    assert '"target_column": "kind"' in settings
    pq = pytest.importorskip("pyarrow.parquet")
    rounds = pq.read_table(tmp_path / "run" / "rounds.parquet").to_pylist()
    assert rounds == history.table()
    with pytest.raises(InvalidSettingError, match="feature_columns"):
        edgefl.simulate(
            plain_sgd_file, path, partition="natural-id", rounds=2, cohort=2, workers=1, target_column="kind",
            feature_columns=[f"f{number}" for number in range(19, -1, -1)], out=tmp_path / "run", resume=True,
            evaluate_devices=0,
        )  # fmt: skip
