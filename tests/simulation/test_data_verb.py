"""`edgefl data partition`: the partition of a simulation, as a table, a picture and files that devices take."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from edgefl.errors import DataError, InvalidSettingError, StorageError
from edgefl.model_file import ModelFile
from edgefl_device_runtime.agent.sources import open_source
from edgefl_device_runtime.tasks import arrange
from edgefl_simulation import partition_data
from edgefl_simulation.data import load_data
from edgefl_simulation.fleet import device_ids
from edgefl_simulation.preparing import Division, prepare_fleet
from edgefl_simulation.tables import HELD_OUT, Tables
from server_process import edgefl

SETTINGS = {"devices": 5, "partition": "dirichlet:0.7,3", "seed": 4}


@pytest.fixture
def data_file(owned, tmp_path):
    np.savez(tmp_path / "data.npz", **owned(3, 40))
    return tmp_path / "data.npz"


def test_a_real_device_finds_the_rows_that_an_emulated_one_holds(plain_sgd_file, data_file, tmp_path):
    manifest = ModelFile.read(plain_sgd_file).manifest
    found = partition_data(data_file, **SETTINGS)
    files = found.write(tmp_path / "files")
    prepared = prepare_fleet(
        load_data(data_file), manifest, Division("dirichlet:0.7,3", 5, seed=4), tmp_path / "tables"
    )
    tables = Tables(tmp_path / "tables")
    assert device_ids([file.stem for file in files]) == list(prepared.fleet.names)
    for number, file in enumerate(files):
        emulated = tables.read(prepared.fleet.rows(number))
        examples = arrange(open_source(str(file))(), manifest)
        (x,), (y,) = examples.x.values(), examples.y.values()
        assert np.array_equal(np.asarray(x), emulated[manifest.inputs[0]])
        assert np.array_equal(np.asarray(y), emulated[manifest.targets[0].name])
    held_out = np.load(tmp_path / "files" / "held_out.npz")
    assert len(held_out["x"]) == prepared.held_out == found.held_out
    assert np.array_equal(held_out["x"], np.load(tmp_path / "tables" / HELD_OUT / f"{manifest.inputs[0]}.npy"))
    about = json.loads((tmp_path / "files" / "partition.json").read_text())
    assert about["devices"] == {file.stem: len(np.load(file)["x"]) for file in files}
    assert about["figures"] == found.holdings.figures()


def test_files_have_the_same_bytes_each_time_and_columns_where_devices_look_for_them(plain_sgd_file, owned, tmp_path):
    manifest = ModelFile.read(plain_sgd_file).manifest
    arrays = owned(3, 20)
    with (tmp_path / "data.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["kind", *(f"c{number}" for number in range(20)), "id"])
        writer.writerows(zip(arrays["y"], *arrays["x"].T.tolist(), arrays["id"], strict=True))
    for folder in ("one", "other"):
        found = partition_data(tmp_path / "data.csv", partition="natural-id", target_column="kind", held_out=0)
        files = found.write(tmp_path / folder)
    assert [file.read_bytes() for file in files] == [(tmp_path / "one" / file.name).read_bytes() for file in files]
    assert not (tmp_path / "one" / "held_out.npz").exists()
    for file in files:
        examples = arrange(open_source(str(file))(), manifest)
        own = arrays["id"] == file.stem
        assert np.allclose(next(iter(examples.x.values())), arrays["x"][own])
        assert np.array_equal(next(iter(examples.y.values())), arrays["y"][own])


def test_the_command_shows_draws_and_writes(data_file, tmp_path):
    pytest.importorskip("matplotlib")
    words = ["--partition", "shard:2", "--devices", "4", "--plot", str(tmp_path / "who.png")]
    done = edgefl("data", "partition", str(data_file), *words, "-o", str(tmp_path / "files"), COLUMNS="80")
    assert done.returncode == 0, done.stderr
    assert "device-000003" in done.stdout
    assert "distance to all total variation" in done.stdout
    assert (tmp_path / "who.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in (tmp_path / "files").iterdir()) == [
        *(f"device-{number:06d}.npz" for number in range(4)),
        "held_out.npz",
        "partition.json",
    ]
    done = edgefl("data", "partition", str(data_file), "--partition", "natural-id", "--format", "json")
    document = json.loads(done.stdout)
    assert len(document["devices"]) == 3
    assert sum(each["rows"] for each in document["devices"].values()) == document["figures"]["rows"]
    assert document["files"] == []


def test_settings_are_called_as_they_are_typed_and_nothing_is_left_half_written(data_file, tmp_path):
    done = edgefl("data", "partition", str(data_file), "--partition", "iid", "-o", str(tmp_path / "files"))
    assert done.returncode == 4
    assert "Give --devices." in done.stderr
    done = edgefl("data", "partition", str(data_file), "--devices", "3", "-o", str(tmp_path))
    assert done.returncode == 4
    assert "is not an empty folder" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["data.npz"]


def test_a_disk_that_is_full_leaves_no_folder(data_file, tmp_path, monkeypatch):
    found = partition_data(data_file, **SETTINGS)

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("edgefl_simulation.holdings.device_files._npy.write_array_header_1_0", full)
    with pytest.raises(StorageError, match="No space left"):
        found.write(tmp_path / "files")
    assert [path.name for path in tmp_path.iterdir()] == ["data.npz"]


def test_a_model_says_which_rows_do_not_fit_it(plain_sgd_file, owned):
    manifest = ModelFile.read(plain_sgd_file).manifest
    arrays = owned()
    arrays["x"][7, 3] = np.nan
    with pytest.raises(DataError, match=r"Input .* must be finite .* in row 7"):
        partition_data(arrays, manifest=manifest, **SETTINGS)
    assert partition_data(arrays, **SETTINGS).holdings.sizes.sum() > 0, "without a model there is nothing to fit"


def test_an_owner_that_is_called_like_the_file_of_held_out_rows_is_refused(owned, tmp_path):
    arrays = owned()
    arrays["id"] = np.where(arrays["id"] == arrays["id"][0], "held_out", arrays["id"])
    with pytest.raises(InvalidSettingError, match="A device is called held_out"):
        partition_data(arrays, partition="natural-id").write(tmp_path / "files")
