"""The partitioners beside those of flwr-datasets, wherever nothing is left to chance; and real data sets of others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgefl_simulation.partitioning import Distribution, IdToSizeFnc, Rows, partition

pytestmark = pytest.mark.network

HERE = Path(__file__).parent
PACKAGES = ["flwr-datasets==0.6.1", "pyarrow<26", "numpy<2", "flatbuffers", "typer<0.29", "urllib3"]


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    folder = tmp_path_factory.mktemp("flwr") / "env"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    subprocess.run([folder / "bin" / "pip", "install", "-q", *PACKAGES], check=True)
    return folder / "bin" / "python"


def printed(python, script):
    folders = [HERE.parents[1], *(HERE.parents[1] / name for name in ("device_runtime", "server", "simulation"))]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders)), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([python, HERE / script], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def theirs(python):
    return printed(python, "flwr_datasets_partitions.py")


@pytest.fixture(scope="module")
def rows(theirs):
    return Rows(1000, np.array(theirs["labels"]), np.array(theirs["owners"]))


def sizes(parts):
    return [len(part) for part in parts]


@pytest.mark.parametrize(("text", "devices"), [("iid", 7), ("size:100,300,50", 0), ("shard:2", 20)])
def test_sizes_are_the_same(theirs, rows, text, devices):
    assert sizes(partition(rows, text, devices, 1)[1]) == sizes(theirs["parts"][text.partition(":")[0]])


@pytest.mark.parametrize(
    ("name", "text", "devices"),
    [
        ("linear", "linear", 9),
        ("square", "square", 9),
        ("exponential", "exponential", 5),
        ("id-to-size-fnc", IdToSizeFnc(np.sqrt), 6),
    ],
)
def test_sizes_in_a_proportion_are_the_same_but_for_rounding_which_they_leave_to_the_last_one(
    theirs, rows, name, text, devices
):
    ours, others = sizes(partition(rows, text, devices, 1)[1]), sizes(theirs["parts"][name])
    assert np.abs(np.subtract(ours, others))[:-1].max() <= 1
    assert sum(ours) == sum(others) == 1000


def test_each_owner_has_the_same_rows(theirs, rows):
    ours = partition(rows, "natural-id", 0, 1)[1]
    assert {tuple(part.tolist()) for part in ours} == {tuple(sorted(part)) for part in theirs["parts"]["natural-id"]}


def test_as_many_owners_share_a_device(theirs, rows):
    def groups(parts):
        return sorted(len(set(rows.owners[part])) for part in parts)

    assert groups(partition(rows, "grouped-natural-id:4", 0, 1)[1]) == groups(theirs["parts"]["grouped-natural-id"])


def test_rows_sorted_by_a_quantity_are_the_same(theirs):
    ours = partition(Rows(1000, np.array(theirs["quantities"])), "continuous:1", 8, 1)[1]
    assert [part.tolist() for part in ours] == [sorted(part) for part in theirs["parts"]["continuous"]]


def counts(parts, labels):
    return np.array([np.bincount(labels[part], minlength=10) for part in parts])


def test_a_pathological_device_has_as_many_classes_and_no_class_lies_nowhere(theirs, rows):
    ours = counts(partition(rows, "pathological:2", 20, 1)[1], rows.labels)
    others = counts(theirs["parts"]["pathological"], rows.labels)
    assert (ours > 0).sum(axis=1).tolist() == (others > 0).sum(axis=1).tolist()
    assert ours.sum(axis=0).tolist() == others.sum(axis=0).tolist()


def test_given_shares_make_the_same_amounts_of_each_class_but_for_rounding(theirs, rows):
    ours = counts(partition(rows, Distribution(2, shares=theirs["shares"]), 20, 1)[1], rows.labels)
    others = counts(theirs["parts"]["distribution"], rows.labels)
    assert ((ours > 0) == (others > 0)).all()
    assert np.abs(ours - others).max() <= 4  # what is left of a class after rounding lies on one of four devices there
    assert ours.sum(axis=0).tolist() == others.sum(axis=0).tolist()


def test_real_data_sets_of_hugging_face_and_pandas_are_read(python):
    found = printed(python, "hugging_face_data_sets.py")
    expected = {"x": [[50, 4, 4], float(np.arange(800, dtype=np.float32).sum())], "y": [[50], 49.0]}
    for name in ("data set", "shuffled", "splits", "iterable"):
        assert found[name]["arrays"] == expected
        assert sorted(found[name]["owners"]) == sorted(f"p{number % 4}" for number in range(50))
    assert found["splits"]["held out"] == 7
    assert "'text' of the data set expects numbers, got text: 'a' in row 0" in found["text"]
    assert "rows of one shape, got (2,) in row 0 and (1,) in row 1" in found["ragged"]
    assert found["frame"]["owners"] == ["x", "y"]
    assert "'a' of the DataFrame expects numbers, got 'u' in row 0" in found["frame with text"]
