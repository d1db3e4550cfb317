from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefl.errors import DataError
from edgefl.manifest import ModelManifest, Signature, Target, TensorSpec
from edgefl_device_runtime.training.data import Intake, prepare


def manifest(*inputs: TensorSpec, targets: tuple[Target, ...] = (), target_specs: tuple[TensorSpec, ...] = ()) -> Any:
    weights = TensorSpec("sample_weight", "sample_weight", (4,), "float32")
    return ModelManifest(
        parameters=(),
        signatures={"evaluate": Signature((*inputs, *target_specs, weights)), "infer": Signature(inputs)},
        inputs=tuple(spec.name for spec in inputs),
        outputs=("output",),
        targets=targets,
        batch_size=4,
    )


CLASSIFIER = manifest(
    TensorSpec("image", "image", (4, 2, 2, 1), "float32"),
    targets=(Target("y", "scores", 3),),
    target_specs=(TensorSpec("y", "y", (4,), "int32"),),
)
ONE_HOT = manifest(
    TensorSpec("image", "image", (4, 2, 2, 1), "float32"),
    targets=(Target("y", "scores"),),
    target_specs=(TensorSpec("y", "y", (4, 3), "float32"),),
)
WORDS = manifest(TensorSpec("a", "a", (4, 2), "int32"), TensorSpec("b", "b", (4,), "float32"))
IMAGES = np.zeros((5, 2, 2, 1), np.float32)
LABELS = np.array([0, 1, 2, 1, 0])


def refused(message: str, *arguments: Any, model: Any = CLASSIFIER) -> DataError:
    with pytest.raises(DataError, match=message) as caught:
        prepare(model, "evaluate", *arguments)
    return caught.value


def test_data_that_fits_is_a_view_and_not_a_copy() -> None:
    large = np.zeros((40_000, 2, 2, 1), np.float32)
    data = prepare(CLASSIFIER, "evaluate", large, np.zeros(40_000, np.int64))
    assert np.shares_memory(data.columns[0].data, large)
    assert data.rows == 40_000
    assert data.sample_weight is None


def test_large_data_of_another_type_is_converted_later_batch_by_batch() -> None:
    large = np.zeros((40_000, 2, 2, 1), np.uint8)
    column = prepare(CLASSIFIER, "infer", large, with_targets=False).columns[0]
    assert np.shares_memory(column.data, large)
    assert column.dtype == np.float32


@pytest.mark.parametrize(
    "array",
    [
        np.asfortranarray(np.arange(600_000, dtype=np.float32).reshape(300_000, 2)),
        np.arange(600_000, dtype=">f4").reshape(300_000, 2),
        np.arange(1_200_000, dtype=np.float32).reshape(600_000, 2)[::2],
    ],
    ids=["fortran", "big-endian", "strided"],
)
def test_arrays_that_numpy_would_copy_for_every_batch_are_laid_out_once(array: np.ndarray) -> None:
    model = manifest(TensorSpec("x", "x", (4, 2), "float32"))
    column = prepare(model, "infer", array, with_targets=False).columns[0]
    assert column.data.flags.c_contiguous
    assert column.data.dtype.isnative
    np.testing.assert_array_equal(column.data, array)


def test_a_memory_mapped_file_is_read_in_place(tmp_path: Any) -> None:
    np.save(tmp_path / "x.npy", np.ones((200_000, 1), np.float32))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    model = manifest(TensorSpec("x", "x", (4, 1), "float32"))
    assert np.shares_memory(prepare(model, "infer", mapped, with_targets=False).columns[0].data, mapped)


def test_a_last_dimension_of_one_is_added_or_dropped_as_keras_does() -> None:
    data = prepare(CLASSIFIER, "evaluate", IMAGES[..., 0], LABELS[:, np.newaxis])
    assert [column.data.shape for column in data.columns] == [(5, 2, 2, 1), (5,)]


def test_lists_dicts_and_plain_numbers_are_taken() -> None:
    words, numbers = [[1, 2], [3, 4]], [0.5, 1]
    for x in ([words, numbers], (words, numbers), {"b": numbers, "a": words}):
        data = prepare(WORDS, "infer", x, with_targets=False)
        assert [column.name for column in data.columns] == ["a", "b"]
        np.testing.assert_array_equal(data.columns[0].data, words)
    for x in (IMAGES, [IMAGES], {"image": IMAGES}, IMAGES.tolist()):
        assert prepare(CLASSIFIER, "evaluate", x, {"scores": LABELS}).rows == 5


@pytest.mark.parametrize(
    ("x", "message"),
    [
        ({"a": [[1, 2]]}, r"2 inputs \(a, b\); got 'a'"),
        ({"a": [[1, 2]], "b": [1], "c": [1]}, "got 'a', 'b', 'c'"),
        ([[[1, 2]]], r"2 inputs \(a, b\); got 1"),
        (np.zeros((2, 2)), "2 inputs .* got ndarray"),
        ([[[1, 2], [3, 4]], [1]], "same number of rows, got a: 2, b: 1"),
        ([[[1, 2, 3]], [1]], r"'a' expects shape \(rows, 2\), got \(1, 3\)"),
        ([[[1, 2], [3]], [1, 2]], "'a' is not an array"),
        ([[["x", "y"]], [1]], "'a' expects numbers"),
        ([[[1, 2.5]], [1]], "whole numbers, got 2.5 in row 0"),
        ([[[1, 2**31]], [1]], f"to {2**31 - 1}, got {2**31} in row 0"),
        ([[[1, np.nan]], [1]], "whole numbers, got nan"),
        ([np.zeros((0, 2)), np.zeros(0)], "no rows"),
    ],
)
def test_inputs_that_do_not_fit_are_named(x: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        prepare(WORDS, "infer", x, with_targets=False)


def test_numbers_that_are_not_finite_are_refused_with_their_row() -> None:
    for wrong in (np.nan, np.inf, -np.inf):
        images = np.zeros((100_000, 2, 2, 1), np.float32)
        images[76_543, 1, 0, 0] = wrong
        refused("finite float32 numbers, .* in row 76543", images, np.zeros(100_000, int))
    refused("overflow in row 0", np.full((5, 2, 2, 1), 1e39), LABELS)


def test_labels_outside_the_classes_are_refused_with_their_row() -> None:
    refused("from 0 to 2, got 3 in row 4", IMAGES, [0, 1, 2, 1, 3])
    refused("from 0 to 2, got -1 in row 0", IMAGES, [-1, 1, 2, 1, 0])
    refused("from 0 to 2, got 7.0 in row 1", IMAGES, [0.0, 7.0, 2.0, 1.0, 0.0])


def test_a_hint_tells_how_to_turn_labels_into_what_the_loss_takes() -> None:
    assert "argmax" in str(refused(r"expects shape \(rows,\), got \(5, 3\)", IMAGES, np.eye(3)[LABELS]))
    assert "np.eye(3)[y]" in str(refused(r"expects shape \(rows, 3\), got \(5,\)", IMAGES, LABELS, model=ONE_HOT))
    assert "x.reshape(-1, 2, 2, 1)." in str(refused("expects shape", IMAGES.reshape(-1, 4), LABELS))
    assert "y.reshape(-1, 3)." in str(refused("expects shape", IMAGES, np.zeros((5, 1, 3)), model=ONE_HOT))
    assert "np.newaxis" in str(refused("expects shape", IMAGES[0], LABELS))


def test_missing_or_misnamed_targets_are_refused() -> None:
    refused("trained towards y", IMAGES)
    refused(r"1 target \(y\); got 'label'", IMAGES, {"label": LABELS})
    refused(r"1 target \(y\); got 'y', 'scores'", IMAGES, {"y": LABELS, "scores": LABELS})
    refused("image: 5, y: 4", IMAGES, LABELS[:4])
    refused(r"expects shape \(rows,\), got \(\)", IMAGES, 1)
    refused(r"expects shape \(rows, 3\), got \(\)", IMAGES, 1, model=ONE_HOT)
    refused("'image' is not an array", [[[1, 2], [3]]], LABELS)


def test_a_weight_of_zero_counts_as_a_row_and_adds_nothing() -> None:
    weights = prepare(CLASSIFIER, "evaluate", IMAGES, LABELS, [0, 1, 0.5, 2, 0]).sample_weight
    assert weights is not None
    np.testing.assert_array_equal(weights, np.array([1.1754944e-38, 1, 0.5, 2, 1.1754944e-38], np.float32))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1, 1], r"shape \(5,\), got int64 \(2,\)"),
        ([1, 1, -1, 1, 1], "not be negative, got -1 in row 2"),
        ([1, 1, np.nan, 1, 1], "finite"),
        (["a"] * 5, "one number per row"),
    ],
)
def test_weights_that_do_not_fit_are_refused(weights: Any, message: str) -> None:
    refused(message, IMAGES, LABELS, weights)


@given(
    dtype=st.sampled_from(["u1", "i2", "<i4", ">i4", "i8", "f2", "<f8", ">f4", "?"]),
    rows=st.integers(1, 9),
    order=st.sampled_from(["C", "F"]),
)
def test_every_type_that_holds_the_values_keeps_them(dtype: str, rows: int, order: Any) -> None:
    values = np.random.default_rng(rows).integers(0, 2, (rows, 2)).astype(dtype).copy(order)
    data = prepare(WORDS, "infer", [values, values[:, 0]], with_targets=False)
    for column, expected in zip(data.columns, (values, values[:, 0]), strict=True):
        np.testing.assert_array_equal(column.data.astype(column.dtype), expected)


def looked_up(dtype: str, entries: Any, shape: tuple[int, ...] = (3,)) -> Any:
    return replace(manifest(TensorSpec("words", "words", (4, *shape), dtype)), index_sizes={"words": entries})


@pytest.mark.parametrize("signature", ["evaluate", "infer"])
@pytest.mark.parametrize("given_as", [np.int32, np.int64, np.float32, np.float64])
@pytest.mark.parametrize("dtype", ["int32", "float32"])
@pytest.mark.parametrize("number", [-1, 10])
def test_a_number_that_an_embedding_does_not_have_is_refused(
    number: int, dtype: str, given_as: Any, signature: str
) -> None:
    words = np.array([[0, 1, 2], [3, 9, 9], [4, number, number]], given_as)
    with pytest.raises(DataError, match=rf"'words' expects .* from 0 to 9, got {number}(\.0)? in row 2 at") as caught:
        prepare(looked_up(dtype, 10), signature, words, with_targets=False)
    assert "position 1" in str(caught.value)
    assert "10 entries" in str(caught.value.hint)
    prepare(looked_up(dtype, 10), signature, words[:2], with_targets=False)


def test_the_row_is_that_of_the_whole_array_and_the_position_that_in_a_row() -> None:
    words = np.zeros((60_000, 2, 2), np.int64)
    words[50_001, 1, 0] = 7
    with pytest.raises(DataError, match=r"from 0 to 6, got 7 in row 50001 at position \(1, 0\)\."):
        prepare(looked_up("int32", 7, (2, 2)), "evaluate", words)
    with pytest.raises(DataError, match=r"from 0 to 6, got 9 in row 1\."):
        prepare(looked_up("int32", 7, ()), "evaluate", np.array([0, 9], np.int32))


def test_columns_are_looked_up_each_in_its_own_entries() -> None:
    model = looked_up("float32", (None, 5, 2))
    prepare(model, "evaluate", np.array([[-7.5, 4.0, 1.0], [1e9, 4.9, 0.0]], np.float32))
    for row, message in (
        ([0.0, 5.0, 0.0], "from 0 to 4, got 5.0 in row 1 at position 1"),
        (
            [0.0, 0.0, -1.0],
            "from 0 to 1, got -1.0 in row 1 at position 2",
        ),
    ):
        with pytest.raises(DataError, match=message):
            prepare(model, "evaluate", np.array([[0, 0, 0], row], np.float32))


def bounded(low: float, high: float) -> Any:
    targets = (Target("y", "scores", bounds=(low, high)),)
    spec = TensorSpec("y", "y", (4, 1), "float32")
    return manifest(TensorSpec("x", "x", (4, 1), "float32"), targets=targets, target_specs=(spec,))


@pytest.mark.parametrize("given_as", [np.int64, np.float32, np.float64])
@pytest.mark.parametrize(("low", "wrong"), [(0.0, -1), (0.0, 2), (-1.0, 7)])
def test_a_label_beyond_what_the_loss_is_made_for_is_refused(low: float, wrong: int, given_as: Any) -> None:
    labels = np.array([[0], [1], [wrong], [1]], given_as)
    x = np.zeros((4, 1), np.float32)
    with pytest.raises(DataError, match=rf"expects numbers from {low:g} to 1, got {wrong}(\.0)? in row 2") as caught:
        prepare(bounded(low, 1.0), "evaluate", x, labels)
    assert f"write them as {low:g} and 1" in str(caught.value.hint)
    prepare(bounded(low, 1.0), "evaluate", x[:2], labels[:2])
    soft = np.array([[0.0], [0.3], [low], [1.0]], np.float32)
    data = prepare(bounded(low, 1.0), "evaluate", x, soft)
    np.testing.assert_array_equal(data.columns[1].data, soft)
    assert Intake(bounded(low, 1.0), "evaluate").take_batch(x, soft, 4) is not None
    assert Intake(bounded(low, 1.0), "evaluate").take_batch(x, labels.astype(np.float32), 4) is None


@pytest.mark.parametrize("given_as", [np.int8, np.int64, np.float32])
def test_the_label_that_a_loss_ignores_need_be_no_class(given_as: Any) -> None:
    target = Target("y", "scores", 3, ignored=-1)
    model = manifest(
        TensorSpec("x", "x", (4, 1), "float32"),
        targets=(target,),
        target_specs=(TensorSpec("y", "y", (4, 2), "int32"),),
    )
    x, labels = np.zeros((4, 1), np.float32), np.array([[0, -1], [-1, -1], [2, 1], [-1, 0]], given_as)
    data = prepare(model, "evaluate", x, labels)
    np.testing.assert_array_equal(data.columns[1].data, labels)
    assert Intake(model, "evaluate").take_batch(x, labels.astype(np.int32), 4) is not None
    labels[2, 1] = -2
    refused(
        "expects whole numbers from 0 to 2, or -1 to be ignored, got -2(.0)? in row 2 at position 1",
        x,
        labels,
        model=model,
    )
    assert Intake(model, "evaluate").take_batch(x, labels.astype(np.int32), 4) is None
    older = replace(model, targets=(replace(target, ignored=None),))
    refused("expects whole numbers from 0 to 2, got -1(.0)? in row 0 at position 1", x, labels, model=older)


def test_labels_name_the_place_in_a_row_of_several() -> None:
    model = manifest(
        TensorSpec("x", "x", (4, 1), "float32"),
        targets=(Target("y", "scores", 3),),
        target_specs=(TensorSpec("y", "y", (4, 5), "int32"),),
    )
    labels = np.zeros((2, 5), np.int32)
    labels[1, 4] = 3
    refused("from 0 to 2, got 3 in row 1 at position 4", np.zeros((2, 1), np.float32), labels, model=model)


@pytest.mark.parametrize(("given", "got"), [({"kind": 0}, "'kind'"), ({"kind": 0, "colour": 0}, "'kind', 'colour'")])
def test_a_dict_that_lacks_a_target_is_told_the_models_own_keys(given: dict[str, int], got: str) -> None:
    model = manifest(
        TensorSpec("x", "x", (4, 1), "float32"),
        targets=(Target("y_dense", "dense", 3), Target("y_dense_1", "dense_1")),
        target_specs=(TensorSpec("y_dense", "y", (4,), "int32"), TensorSpec("y_dense_1", "z", (4, 1), "float32")),
    )
    model = replace(model, outputs=("dense", "dense_1"), output_structure={"kind": 0, "size": 1})
    labels = dict.fromkeys(given, LABELS)
    refused(rf"Expected 2 targets \(kind, size\); got {got}\.", np.zeros((5, 1), np.float32), labels, model=model)
    refused("trained towards kind, size", np.zeros((5, 1), np.float32), model=model)
