from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgefl.errors import DataError
from edgefl.manifest import Target
from edgefl_device_runtime.tasks import arrange
from small_manifest import make_manifest

X = np.arange(8, dtype=np.float32).reshape(4, 2)
Y = np.array([0, 1, 2, 0])


def test_x_and_y_stand_for_the_only_input_and_target():
    examples = arrange({"x": X, "y": Y}, make_manifest())
    assert examples.x["image"] is X
    assert examples.y["label"] is Y
    assert examples.rows == 4


@pytest.mark.parametrize("name", ["label", "probabilities", "y"])
def test_the_target_is_found_by_its_own_name_or_its_outputs(name):
    assert arrange({"image": X, name: Y}, make_manifest()).y["label"] is Y


def test_arrays_that_the_model_does_not_know_are_left_alone():
    examples = arrange({"x": X, "y": Y, "x_test": X[:1]}, make_manifest())
    assert list(examples.x) == ["image"]


def test_an_input_called_y_is_not_taken_for_the_target():
    with pytest.raises(DataError, match="'label'"):
        arrange({"y": X}, make_manifest(inputs=("y",), targets=(Target("label", "probabilities"),)))


def test_sample_weights_are_taken_along():
    assert arrange({"x": X, "y": Y, "sample_weight": Y}, make_manifest()).sample_weight is Y


def test_the_last_column_of_a_table_is_the_target():
    columns = {"a": X[:, 0], "b": X[:, 1], "kind": Y.astype(np.float64)}
    examples = arrange(columns, make_manifest())
    np.testing.assert_array_equal(examples.x["image"], X)
    assert examples.x["image"].dtype == np.float32
    np.testing.assert_array_equal(examples.y["label"], Y)


def test_a_column_named_like_the_target_is_the_target_wherever_it_stands():
    columns = {"label": Y, "a": X[:, 0], "b": X[:, 1], "sample_weight": np.ones(4)}
    examples = arrange(columns, make_manifest())
    np.testing.assert_array_equal(examples.x["image"], X)
    assert examples.y["label"] is Y


def test_a_table_with_another_number_of_columns_is_refused():
    with pytest.raises(DataError, match="2 numbers a row, the table has 3 columns"):
        arrange({"a": Y, "b": Y, "c": Y, "kind": Y}, make_manifest())


def test_arrays_of_different_length_are_refused():
    with pytest.raises(DataError, match="equal numbers of rows"):
        arrange({"x": X, "y": Y[:3]}, make_manifest())


@pytest.mark.parametrize("name", ["x", "y", "sample_weight"])
def test_a_single_number_is_no_array_of_rows(name):
    with pytest.raises(DataError, match="a row for each example"):
        arrange({"x": X, "y": Y, name: np.float32(1)}, make_manifest())


def test_a_missing_array_is_named_with_what_is_there():
    with pytest.raises(DataError, match=r"expects an array 'image'; the data holds 'pictures', 'label'"):
        arrange({"pictures": X, "label": Y}, make_manifest())


def test_several_inputs_and_targets_are_taken_by_name():
    targets = (Target("y_a", "a"), Target("y_b", "b"))
    both = make_manifest(inputs=("left", "right"), targets=targets)
    examples = arrange({"left": X, "right": X, "a": Y, "y_b": Y}, both)
    assert (list(examples.x), list(examples.y)) == (["left", "right"], ["y_a", "y_b"])
    with pytest.raises(DataError, match=r"'right'.* an array for each of 'left', 'right', .*, under these names"):
        arrange({"left": X, "x": X, "a": Y, "b": Y}, both)


DICTS = replace(
    make_manifest(inputs=("left", "right"), targets=(Target("y_a", "a"), Target("y_b", "b"))),
    outputs=("a", "b"),
    input_structure={"first": 1, "second": 0},
    output_structure={"kind": 1, "size": 0},
)


@pytest.mark.parametrize(
    "names", [("size", "kind"), ("y_size", "y_kind"), ("a", "b"), ("y_a", "y_b"), ("size", "y_b"), ("y_a", "kind")]
)
@pytest.mark.parametrize("inputs", [("left", "right"), ("second", "first")])
def test_the_keys_of_a_dict_are_names_too(names, inputs):
    left, right, a, b = X, X + 1, Y, Y + 1
    arrays = dict(zip((*inputs, *names), (left, right, a, b), strict=True))
    examples = arrange(arrays, DICTS)
    assert (examples.x["left"] is left, examples.x["right"] is right) == (True, True)
    assert (examples.y["y_a"] is a, examples.y["y_b"] is b) == (True, True)


def test_a_key_that_is_another_outputs_name_is_the_key():
    crossed = replace(DICTS, output_structure={"a": 1, "b": 0})
    examples = arrange({"left": X, "right": X, "a": Y, "b": Y + 1}, crossed)
    assert examples.y["y_b"] is not examples.y["y_a"]
    np.testing.assert_array_equal(examples.y["y_b"], Y)


def test_what_a_dict_lacks_is_named_by_its_key():
    with pytest.raises(DataError, match=r"expects an array 'size'.* each of 'second', 'first', 'size', 'kind'"):
        arrange({"first": X, "second": X, "y": Y}, DICTS)
    with pytest.raises(DataError, match="expects an array 'first'"):
        arrange({"second": X, "size": Y, "kind": Y}, DICTS)
