"""What a fleet's data is like: as a real server finds it of the same devices, and as numpy does of all rows."""

from __future__ import annotations

import json

import numpy as np
import pytest

import edgefl
from edgefl.errors import InvalidSettingError
from real_processes import Fleet, write_identity
from server_process import edgefl as command

DEVICES = 5


@pytest.fixture
def fleet(tmp_path):
    fleet = Fleet(tmp_path / "real")
    yield fleet
    fleet.close()


def test_it_is_to_the_last_bit_what_a_real_server_finds_of_real_devices(fleet, owned, federated_file, tmp_path):
    data = owned(DEVICES)
    fleet.start_server()
    run = fleet.create_run(federated_file, "kitchen", rounds=1, target=DEVICES, kind="statistics")
    for number in range(DEVICES):
        own = data["id"] == write_identity(fleet.folder / f"d{number}", number)
        np.savez(fleet.folder / f"d{number}.npz", x=data["x"][own], y=data["y"][own])
    processes = [
        fleet.start_device(f"d{number}", "kitchen", fleet.folder / f"d{number}.npz") for number in range(DEVICES)
    ]
    for process in processes:
        process.finish()
    command("run", "statistics", run, "--state", str(fleet.state), "-o", str(tmp_path / "real.json"))
    out = tmp_path / "emulated.json"
    found = edgefl.federated_statistics(federated_file, data, partition="natural-id", held_out=0, out=out)
    assert out.read_bytes() == (tmp_path / "real.json").read_bytes()
    assert found == json.loads(out.read_text())


def test_it_is_what_numpy_finds_of_all_rows_that_devices_hold(owned, federated_file):
    data = owned(3, 60)
    found = edgefl.federated_statistics(federated_file, (data["x"], data["y"]), devices=7, held_out=0)
    (name,) = found["inputs"]
    x, own = data["x"].astype(float), found["arrays"][name]
    assert (found["rows"], found["devices"]) == (len(x), 7)
    np.testing.assert_allclose(own["mean"], x.mean(axis=0), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(own["variance"], x.var(axis=0), rtol=1e-12)
    np.testing.assert_array_equal([own["low"], own["high"]], [x.min(axis=0), x.max(axis=0)])
    (target,) = set(found["arrays"]) - {name}
    assert found["arrays"][target]["values"] == [[int(v), int((data["y"] == v).sum())] for v in np.unique(data["y"])]
    some = edgefl.federated_statistics(federated_file, (data["x"], data["y"]), devices=7, held_out=0.5)
    assert some["rows"] == len(x) - round(0.5 * len(x))


def test_devices_with_too_few_rows_sum_up_nothing_and_of_too_few_devices_nothing_is_shown(owned, federated_file):
    data = owned(DEVICES)  # 19, 27, 35, 43 and 51 rows
    given = {"partition": "natural-id", "held_out": 0}
    found = edgefl.federated_statistics(federated_file, data, **given, minimum_examples=30, shown_from=3)
    assert (found["rows"], found["devices"]) == (35 + 43 + 51, 3)
    with pytest.raises(
        InvalidSettingError, match=r"at least 5 devices \(shown_from\), and 3 of 5 sum up .* than 30 rows"
    ):
        edgefl.federated_statistics(federated_file, data, **given, minimum_examples=30)
    with pytest.raises(InvalidSettingError, match="shown_from expects a number from 1"):
        edgefl.federated_statistics(federated_file, data, **given, shown_from=0)
    with pytest.raises(InvalidSettingError, match="devices expects a whole number, got '5'"):
        edgefl.federated_statistics(federated_file, data, devices="5")


def test_the_verb_tells_it_in_the_words_of_a_run_and_writes_the_file(owned, federated_file, tmp_path):
    data = owned(DEVICES)
    np.savez(tmp_path / "data.npz", **data)
    source, out = str(tmp_path / "data.npz"), str(tmp_path / "out.json")
    typed = ["data", "statistics", source, "--model", str(federated_file), "--partition", "natural-id"]
    told = command(*typed, "--held-out", "0", "-o", out).stdout
    assert "175 examples of 5 devices" in told
    assert f"wrote {out}: edgefl convert MODEL --normalization {out} takes it" in told
    found = edgefl.federated_statistics(federated_file, data, partition="natural-id", held_out=0)
    assert json.loads((tmp_path / "out.json").read_text()) == found
    assert json.loads(command(*typed, "--held-out", "0", "--format", "json").stdout) == {"file": None, **found}


def test_who_asks_a_simulation_for_it_is_told_where_it_is(owned, federated_file):
    with pytest.raises(InvalidSettingError, match="A simulation trains") as refused:
        edgefl.simulate(
            federated_file, owned(DEVICES), partition="natural-id", rounds=1, cohort=5, kind="statistics", held_out=0
        )
    assert "edgefl.federated_statistics" in str(refused.value)
