"""Data sets of tf.data, Hugging Face and pandas, which are recognised without being imported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgefl.errors import DataError
from edgefl_simulation.data import load_data

SCRIPT = Path(__file__).with_name("tensorflow_data_sets.py")
SUM_X = float(np.arange(600, dtype=np.float32).sum())


@pytest.fixture(scope="module")
def tensorflow():
    done = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", ["examples", "batches"])
def test_tf_data_is_read_the_same_in_batches_and_in_examples(tensorflow, name):
    assert tensorflow[name] == {"x": [[50, 4, 3], SUM_X], "y": [[50], 49.0]}


def test_tf_data_in_batches_of_one_size_and_what_only_looks_like_it_are_told_apart(tensorflow):
    assert tensorflow["whole batches"]["x"][0] == [48, 4, 3]
    assert tensorflow["examples that look like batches"] == {"x": [[50, 4, 3], SUM_X], "y": [[50, 4], 50.0]}
    assert tensorflow["batches that look like examples"]["x"][0] == [48, 4, 3]
    assert tensorflow["batches undone"]["x"] == [[50, 4, 3], SUM_X]


def test_tf_data_by_name_with_owners_and_with_weights(tensorflow):
    assert tensorflow["dict"]["owners"] == [f"p{number % 4}" for number in range(50)]
    assert list(tensorflow["dict"]) == ["x", "y", "owners"]
    assert tensorflow["inputs by name"]["b"][0] == [50, 3]
    assert tensorflow["weights"]["sample_weight"] == [[50], 50.0]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("endless", "repeats for ever. Leave out .repeat()"),
        ("inputs alone", "got single arrays"),
        ("inputs without names", "got a tuple of 2"),
        ("ragged", "Cannot batch tensors with different shapes in component 0. First element had shape [2]"),
        ("ragged tensors", "got RaggedTensorSpec"),
        ("text", "expects numbers, got b'a' in row 0"),
        ("nothing", "Expected examples from the tf.data data set, got none"),
    ],
)
def test_tf_data_that_is_no_rows_is_refused_with_what_to_do(tensorflow, name, message):
    assert message in tensorflow[name]


class Columns(dict):
    """Something like a `datasets.DatasetDict`. The real ones: test_beside_flwr_datasets.py."""

    __module__ = "datasets.arrow_dataset"


def hugging_face(columns):
    """Something like a `datasets.Dataset`: no mapping, with columns, formats and batches."""

    class Dataset:
        __module__ = "datasets.arrow_dataset"

        def __init__(self):
            self.column_names = list(columns)

        def select_columns(self, names):
            return hugging_face({name: columns[name] for name in names})

        def with_format(self, kind):
            assert kind == "numpy"
            return self

        def iter(self, batch_size):
            rows = len(next(iter(columns.values())))
            for start in range(0, rows, 4):
                yield {name: np.array(column[start : start + 4]) for name, column in columns.items()}

    return Dataset()


ROWS = {"image": np.ones((10, 2, 2)), "label": np.arange(10) % 3, "id": ["p", "q"] * 5, "text": ["a"] * 10}


def test_a_hugging_face_data_set_is_read_by_columns_and_a_test_split_is_held_out():
    found = load_data(hugging_face(ROWS), features=["image"], target="label")
    assert found.arrays["x"].shape == (10, 2, 2)
    assert found.owner_names[found.owners].tolist() == ["p", "q"] * 5
    splits = Columns(train=hugging_face(ROWS), validation=hugging_face(ROWS), test=hugging_face(ROWS))
    found = load_data(splits, features="image", target="label")
    assert found.held_out["y"].tolist() == (np.arange(10) % 3).tolist()
    assert load_data(Columns(train=hugging_face(ROWS)), features="image", target="label").held_out == {}


def test_what_is_wrong_with_a_hugging_face_data_set_is_said():
    with pytest.raises(DataError, match="'text' of the data set expects numbers, got text: 'a' in row 0"):
        load_data(hugging_face(ROWS))
    with pytest.raises(DataError, match="has no array or column 'img'"):
        load_data(hugging_face(ROWS), features="img", target="label")
    with pytest.raises(DataError, match="Expected a split 'train', got 'test'"):
        load_data(Columns(test=hugging_face(ROWS)))
    ragged = {"x": [[1.0, 2.0]] * 8 + [[1.0]] * 2, "y": [0] * 10}
    with pytest.raises(DataError, match=r"'x' of the data set changes from row 8 on: .* \(2,\), got .* \(1,\)"):
        load_data(hugging_face(ragged))
