"""What a refusal says: what was seen in the user's own model, causes that were checked, and advice that can help."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import edgefl
from edgefl.errors import (
    DataError,
    EdgeflError,
    InvalidSettingError,
    ModelError,
    UnsupportedModelError,
    VerificationError,
    listed,
)
from edgefl_converters.blame.checked_causes import checked_causes
from edgefl_converters.blame.suggestions import replacement
from edgefl_converters.models.loss_fit import require_fitting_loss
from edgefl_converters.models.requirements import require_convertible
from edgefl_converters.training_step.specification import specify


def model(*stack: Any, shape: tuple[int, ...] = (6,), **compiled: Any) -> keras.Model:
    made = keras.Sequential([keras.Input(shape, name="readings"), *stack])
    made.compile(**{"optimizer": "sgd", "loss": "mse", **compiled})
    return made


class BatchMean(layers.Layer):  # type: ignore[misc]
    def call(self, x: Any) -> Any:
        return x - ops.mean(x, axis=0, keepdims=True)


class CountsRows(layers.Layer):  # type: ignore[misc]
    """Feels that rows are there twice, and nothing else."""

    def call(self, x: Any) -> Any:
        different = tf.size(tf.unique(tf.reshape(x, [-1]))[0])
        return x * tf.cast(different, "float32")


class OwnChance(layers.Layer):  # type: ignore[misc]
    def call(self, x: Any) -> Any:
        return x + tf.random.normal(tf.shape(x))


class AddsLoss(layers.Layer):  # type: ignore[misc]
    def call(self, x: Any) -> Any:
        self.add_loss(ops.mean(ops.square(x)))
        return x


@pytest.mark.parametrize(
    ("made", "message", "hint"),
    [
        (
            lambda: model(layers.Flatten(), layers.Dense(1), shape=(0, 6)),
            r"Input 'readings' has shape \(None, 0, 6\)",
            "one example",
        ),
        (
            lambda: model(layers.Dense(1), optimizer=keras.optimizers.SGD(lambda: 0.1)),
            "learning rate of SGD is a function, <lambda>",
            "schedules",
        ),
        (
            lambda: model(layers.Dense(1), loss_weights=["mae"]),
            r"loss_weights=\['mae'\].* 'mae' is no number",
            r"metrics=\['mae'\]",
        ),
        (
            lambda: model(layers.Dense(1), loss_weights=[keras.metrics.AUC()]),
            r"loss_weights=\[auc\]|loss_weights=\[AUC\]",
            "name the metrics",
        ),
        (
            lambda: model(layers.Resizing(4, 4), layers.Flatten(), layers.Dense(1), shape=(8, 8)),
            r"\(Resizing\) takes images, rank 4 .* it is given rank 3",
            "Reshape",
        ),
        (
            lambda: model(layers.RandomFlip(), layers.Dense(1)),
            r"\(RandomFlip\) takes images, rank 4 .* it is given rank 2",
            "leave it out",
        ),
    ],
)
def test_a_mistake_of_the_user_is_named_with_what_was_given(made: Any, message: str, hint: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        require_convertible(made())
    assert caught.value.hint is not None
    assert hint.replace("\\", "") in caught.value.hint


def test_an_empty_tensor_within_the_model_is_named_before_a_runtime_dies_of_it() -> None:
    made = model(layers.Conv1D(3, 2, padding="valid"), shape=(6, 2))
    inner = keras.Input((6, 2))
    empty = keras.Model(inner, layers.Flatten()(inner[:, 3:3]))
    outer = keras.Sequential([keras.Input((6, 2)), empty])
    require_convertible(made)
    with pytest.raises(ModelError, match=r"gives \(None, 0, 2\): a dimension of 0"):
        require_convertible(outer)


def test_a_softmax_before_a_loss_of_logits_is_named() -> None:
    logits = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    with pytest.warns(UserWarning, match=r"is a softmax, and \w+ has from_logits=True.*Say from_logits=False"):
        require_fitting_loss(model(layers.Dense(3, "softmax"), loss=logits))
    with pytest.raises(ModelError, match=r"from_logits=True.*would be applied twice"):
        require_fitting_loss(model(layers.Dense(3, "softmax"), layers.Reshape((3,)), loss=logits))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        require_fitting_loss(model(layers.Dense(3), loss=logits))


@pytest.mark.parametrize(
    ("layer", "field", "named"),
    [
        (BatchMean, "mixing", "BatchMean"),
        (CountsRows, "mixing", "CountsRows"),
        (OwnChance, "unsteady", "OwnChance"),
        (AddsLoss, "added", "AddsLoss"),
    ],
)
def test_only_causes_that_keras_itself_shows_are_given(layer: Any, field: str, named: str) -> None:
    made = model(layers.Dense(4), layer(), layers.Dropout(0.5), layers.Dense(1))
    before = [np.array(each) for each in made.variables]
    specification = specify(made, batch_size=8)
    rows = np.random.default_rng(0).normal(size=(8, 6)).astype(np.float32)
    causes = checked_causes(specification, [rows], 5)
    found = {name: getattr(causes, name) for name in ("mixing", "unsteady", "added") if getattr(causes, name)}
    assert list(found) == [field]
    assert named in found[field]
    for one, other in zip(before, made.variables, strict=True):
        np.testing.assert_array_equal(one, np.array(other))


def test_a_model_without_such_a_cause_is_given_none() -> None:
    made = model(
        layers.Dense(4, activity_regularizer="l2"), layers.Dropout(0.5), layers.LayerNormalization(), layers.Dense(1)
    )
    causes = checked_causes(specify(made, batch_size=8), [np.ones((8, 6), np.float32)], 5)
    assert (causes.mixing, causes.unsteady, causes.added) == (None, None, None)
    assert "neither a layer nor an added loss was found" in causes.of_padding


def test_a_batch_that_is_not_full_is_blamed_on_the_layer_that_feels_it(tmp_path: Path) -> None:
    with pytest.raises(VerificationError) as caught:
        edgefl.convert(model(layers.Dense(4), BatchMean(), layers.Dense(1)), tmp_path / "m.tflite", batch_size=8)
    told = caught.value.hint or ""
    assert "In Keras too, layer 'batch_mean" in told
    assert "report" not in told
    assert "freeze" not in told
    assert "add_loss" not in told
    assert not list(tmp_path.iterdir())


class Beta(layers.Layer):  # type: ignore[misc]
    def call(self, x: Any) -> Any:
        return tf.math.betainc(tf.abs(x) + 1.0, tf.abs(x) + 1.0, tf.sigmoid(x))


def test_freezing_is_not_advised_where_it_cannot_help(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match=r"\(Beta\): Betainc") as caught:
        edgefl.convert(model(layers.Dense(4), Beta(), layers.Dense(1)), tmp_path / "m.tflite", batch_size=8)
    assert caught.value.hint == "Replace that layer by one that is supported."
    with_weights, without = (
        replacement("layer 'x'", is_layer=True, has_weights=has, in_inference=False) for has in (True, False)
    )
    assert "freeze it (" in with_weights
    assert "freeze it" not in without
    assert "freeze the layers before it" in without
    assert replacement("the loss", is_layer=False, has_weights=False, in_inference=False).endswith("another loss.")


def test_a_message_ends_with_one_full_stop() -> None:
    pairs = {
        "It fails": "It fails.",
        "It fails.": "It fails.",
        "It fails: why..": "It fails: why.",
        "And so on...": "And so on...",
        "Why?": "Why?",
    }
    for text, ended in pairs.items():
        assert EdgeflError(text).message == ended
        assert str(EdgeflError(text, hint="Do it.")) == f"{ended} Do it."


def test_long_lists_are_cut() -> None:
    assert listed([]) == "none"
    assert listed("abc") == "a, b, c"
    assert listed(str(each) for each in range(9)) == "0, 1, 2, 3, 4, 5, 6, 7, 8"
    assert listed(str(each) for each in range(300)) == "0, 1, 2, 3, 4, 5, 6, 7 and 292 more"


def test_a_model_of_many_layers_is_refused_with_a_short_list(tmp_path: Path) -> None:
    deep = model(*[layers.Dense(2) for _ in range(30)], layers.Dense(1))
    edgefl.convert(deep, tmp_path / "m.tflite", batch_size=4, verify=False)
    ours = edgefl.TrainableModel(tmp_path / "m.tflite", runtime="ai-edge-litert")
    for wrong in ([np.zeros(3)], {"other": np.zeros(3)}):
        with pytest.raises(DataError) as caught:
            ours.set_weights(wrong)
        assert " more" in caught.value.message
        assert len(caught.value.message) < 400


@pytest.mark.parametrize(
    ("compiled", "message", "hint"),
    [
        ({"metrics": ["accurcy"]}, "Keras knows no metric 'accurcy'", "'accuracy'"),
        (
            {"weighted_metrics": [["mean_absolut_error"]]},
            "Keras knows no metric 'mean_absolut_error'",
            "absolute_error",
        ),
        ({"loss": "mean_sqared_error"}, "Keras knows no loss 'mean_sqared_error'", "squared_error"),
    ],
)
def test_a_name_with_a_wrong_letter_in_compile_is_named_with_the_nearest(
    compiled: dict[str, Any], message: str, hint: str, tmp_path: Path
) -> None:
    model = keras.Sequential([keras.Input((5,)), layers.Dense(1)])
    model.compile("sgd", **{"loss": "mse", **compiled})
    with pytest.raises(InvalidSettingError, match=message) as caught:
        edgefl.convert(model, tmp_path / "model.tflite")
    assert hint in str(caught.value.hint)


class Doubled(layers.Layer):  # type: ignore[misc]
    """Calls numpy."""

    def call(self, x: Any) -> Any:
        return tf.reshape(tf.numpy_function(lambda values: values * 2, [x], tf.float32), (-1, 4))


def test_python_in_a_layer_is_named_and_not_the_shape_that_it_leaves_open(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((4,)), layers.Dense(4), Doubled(name="doubled"), layers.Dense(1)])
    model.compile("sgd", "mse")
    with pytest.raises(UnsupportedModelError, match=r"tf\.numpy_function.*'doubled' \(Doubled\)") as caught:
        edgefl.convert(model, tmp_path / "model.tflite", batch_size=4)
    assert "keras.ops" in str(caught.value.hint)
