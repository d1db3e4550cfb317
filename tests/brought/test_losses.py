"""Losses and metrics as people write them train on devices as in Keras: one number for a batch, or no reduction."""

from __future__ import annotations

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, losses, ops
from keras.src.trainers.compile_utils import get_loss

import edgefl
from beside_keras import fits_alike
from edgefl.errors import InvalidSettingError, ModelError, UnsupportedModelError
from edgefl_converters.building.building import build
from edgefl_converters.settings.options import Options
from edgefl_converters.training_step.loss_forms import form_of, target_of
from edgefl_converters.training_step.ports import Port
from edgefl_device_runtime.training import TrainableModel


def dice(y_true, y_pred):
    """One number for the batch, with TensorFlow's own functions."""
    both = tf.reduce_sum(y_true * y_pred)
    return 1.0 - (2.0 * both + 1.0) / (tf.reduce_sum(y_true) + tf.reduce_sum(y_pred) + 1.0)


def rmse(y_true, y_pred):
    return ops.sqrt(ops.mean(ops.square(y_true - y_pred)))


def squares(y_true, y_pred):
    """A number for every element: not reduced over the last axis."""
    return tf.square(y_true - y_pred)


def weighted_by_the_batch(y_true, y_pred):
    """A number for each row, which depends on how many positives the batch has."""
    return keras.losses.binary_crossentropy(y_true, y_pred) * (1.0 + ops.mean(y_true))


def contrastive(y_true, y_pred):
    near, far = ops.square(y_pred), ops.square(ops.maximum(1.0 - y_pred, 0.0))
    return ops.mean((1.0 - y_true) * near + y_true * far)


class Tversky(losses.Loss):
    def call(self, y_true, y_pred):
        both = ops.sum(y_true * y_pred)
        return 1.0 - both / (both + 0.3 * ops.sum((1.0 - y_true) * y_pred) + 0.7 * ops.sum(y_true * (1.0 - y_pred)))


class OwnCall(losses.Loss):
    def __call__(self, y_true, y_pred, sample_weight=None):
        return ops.mean(ops.abs(y_true - y_pred))


class AveragedOverSpace(losses.Loss):
    """A number for each row of an image, which has a lower rank than Keras's own losses there."""

    def call(self, y_true, y_pred):
        return ops.mean(ops.square(y_true - y_pred), axis=(1, 2, 3))


def f1(y_true, y_pred):
    both = ops.sum(y_true * ops.round(y_pred))
    return 2.0 * both / (ops.sum(y_true) + ops.sum(ops.round(y_pred)) + 1e-7)


def network(loss, optimizer="sgd", *, units=3, activation="sigmoid", **compiled):
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [keras.Input((5,)), layers.Dense(6, activation="tanh"), layers.Dense(units, activation=activation)]
    )
    model.compile(optimizer, loss, **compiled)
    return model


def rows(count=12, *, units=3):
    random = np.random.default_rng(7)
    return random.normal(size=(count, 5)).astype(np.float32), random.integers(0, 2, (count, units)).astype(np.float32)


@pytest.mark.parametrize(
    ("loss", "name"),
    [
        (dice, "dice"),
        pytest.param(rmse, "rmse", marks=pytest.mark.slow),
        pytest.param(contrastive, "contrastive", marks=pytest.mark.slow),
        (weighted_by_the_batch, "weighted_by_the_batch"),
        pytest.param(Tversky(), "Tversky", marks=pytest.mark.slow),
        (Tversky(reduction="sum"), "Tversky"),
        (OwnCall(), "OwnCall"),
    ],
)
def test_a_loss_of_the_whole_batch_trains_as_in_keras_on_full_batches(loss, name, tmp_path):
    manifest = fits_alike(network(loss), tmp_path, *rows())
    assert manifest.mixes_rows
    assert manifest.of_whole_batches == (f"the loss {name!r}",)


@pytest.mark.parametrize(
    "loss",
    [
        squares,
        losses.MeanSquaredError(reduction=None),
        pytest.param(losses.BinaryCrossentropy(reduction="none"), marks=pytest.mark.slow),
        losses.Dice(reduction="sum"),
        pytest.param(losses.Dice(reduction=None), marks=pytest.mark.slow),
    ],
)
def test_other_losses_leave_batches_to_be_filled_up_and_train_as_in_keras(loss, tmp_path):
    x, y = rows(14)  # Keras's last batch has two rows
    manifest = fits_alike(network(loss, "adam"), tmp_path, x, y)
    assert not manifest.mixes_rows
    assert manifest.of_whole_batches == ()


def test_verification_holds_for_a_loss_of_the_whole_batch_and_for_one_without_reduction(tmp_path):
    for loss in (dice, losses.MeanAbsoluteError(reduction=None)):
        report = edgefl.convert(network(loss), tmp_path / "m.tflite", batch_size=4).report
        assert report["verification"]["passed"]


def test_a_loss_of_lower_rank_than_its_output_weighs_rows_and_no_columns(tmp_path):
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((4, 4, 2)), layers.Conv2D(2, 3, padding="same")])
    model.compile("sgd", AveragedOverSpace())
    x = np.random.default_rng(0).normal(size=(6, 4, 4, 2)).astype(np.float32)
    assert not fits_alike(model, tmp_path, x, x[..., ::-1].copy()).mixes_rows


@pytest.mark.parametrize("optimizer", [keras.optimizers.SGD, keras.optimizers.Adam])
def test_a_scaled_loss_trains_as_in_keras(optimizer, tmp_path):
    manifest = fits_alike(network("mse", optimizer(0.01, loss_scale_factor=64.0)), tmp_path, *rows())
    assert manifest.optimizer["config"]["loss_scale_factor"] == 64.0


def test_weights_of_rows_weigh_a_loss_of_the_whole_batch_by_their_mean():
    model, (x, y) = network(dice), rows(4)
    weight = np.array([0.5, 2.0, 1.0, 1.5], np.float32)
    device = TrainableModel(build(model, batch_size=4).data)
    assert device.manifest.of_whole_batches == ("the loss 'dice'",)
    assert device.evaluate(x, y, weight)["loss"] == pytest.approx(
        model.evaluate(x, y, sample_weight=weight, verbose=0), rel=1e-5
    )
    found = device.train_on_batch(x, y, weight)["loss"]
    assert found == pytest.approx(float(model.train_on_batch(x, y, sample_weight=weight)), rel=1e-5)
    np.testing.assert_allclose(device.get_weights()[0], model.weights[0], rtol=1e-5)


def test_what_becomes_of_the_last_batch_is_said_once_and_names_the_loss():
    device = TrainableModel(build(network(dice), batch_size=4).data)
    x, y = rows(10)
    with pytest.warns(UserWarning, match="last 2 of 10 rows are left out of each epoch: the loss 'dice'"):
        device.fit(x, y)
    with warnings.catch_warnings(action="error"):
        device.fit(x, y)
    with pytest.raises(InvalidSettingError, match=r"'pad' cannot be used: the loss 'dice'"):
        device.fit(x, y, batch_policy="pad")
    with pytest.warns(UserWarning, match="is filled up to 4"):
        device.fit(*rows(3))


def test_metrics_of_the_whole_batch_have_keras_values(tmp_path):
    model = network("binary_crossentropy", metrics=[f1, "accuracy", squares], weighted_metrics=[f1])
    manifest = fits_alike(model, tmp_path, *rows())
    assert [each.name for each in manifest.metrics] == ["f1", "accuracy", "squares", "weighted_f1"]
    assert manifest.of_whole_batches == ("the metric 'f1'", "the metric 'weighted_f1'")


def test_metrics_of_images_count_positions_of_real_rows_alone(tmp_path):
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((4, 4, 1)), layers.Conv2D(1, 3, padding="same", activation="sigmoid")])
    metrics = [keras.metrics.BinaryIoU(target_class_ids=[1]), keras.metrics.Precision(), "accuracy"]
    model.compile("sgd", "binary_crossentropy", metrics=metrics)
    random = np.random.default_rng(0)
    x = random.normal(size=(6, 4, 4, 1)).astype(np.float32)
    manifest = fits_alike(model, tmp_path, x, (x > 0.3).astype(np.float32))
    assert len(manifest.metrics) == 3


def test_several_outputs_have_several_kinds_of_losses(tmp_path):
    keras.utils.set_random_seed(1)
    inputs = keras.Input((5,))
    hidden = layers.Dense(4, activation="tanh", kernel_regularizer="l2")(inputs)
    b = layers.Dense(2, activation="sigmoid", name="b")(hidden)
    a = layers.Dense(3, activation="softmax", name="a")(hidden)
    model = keras.Model(inputs, [b, a])
    model.compile(
        "adam",
        {"a": "sparse_categorical_crossentropy", "b": dice},
        loss_weights={"a": 1.0, "b": 0.5},
        metrics={"a": ["accuracy"], "b": [f1]},
    )
    x, y = rows(12, units=2)
    labels = np.random.default_rng(3).integers(0, 3, 12)
    manifest = fits_alike(model, tmp_path, x, [y, labels])
    assert manifest.of_whole_batches == ("the loss 'dice'", "the metric 'b_f1'")


def test_two_losses_without_reduction_are_added_up_row_by_row(tmp_path):
    keras.utils.set_random_seed(1)
    inputs = keras.Input((5,))
    model = keras.Model(inputs, [layers.Dense(2, name="one")(inputs), layers.Dense(3, name="two")(inputs)])
    model.compile("sgd", [losses.MeanSquaredError(reduction=None), losses.MeanAbsoluteError()])
    x, y = rows(12)
    assert not fits_alike(model, tmp_path, x, [y[:, :2], y]).mixes_rows


def test_circle_loss_compares_the_rows_of_a_batch(tmp_path):
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((5,)), layers.Dense(3), layers.UnitNormalization()])
    model.compile(keras.optimizers.SGD(0.001), losses.Circle(gamma=8))
    labels = np.array([0, 1, 0, 1, 7, 7, 2, 2])
    manifest = fits_alike(model, tmp_path, rows(8)[0], labels)
    assert manifest.of_whole_batches == ("the loss 'circle'",)
    assert manifest.targets[0].classes is None  # any whole number is a label


def triplets(labels, embeddings):
    """Takes one label for each row, whatever the output is like."""
    same = ops.equal(labels, ops.transpose(ops.reshape(labels, (-1, 1))))
    if len(labels.shape) != 1:
        raise ValueError("expected labels of shape [rows]")
    distance = ops.sum(ops.square(embeddings[:, None] - embeddings[None]), axis=-1)
    return ops.mean(ops.where(same, distance, ops.maximum(1.0 - distance, 0.0)), axis=1)


def test_the_target_is_what_a_loss_of_ones_own_takes(tmp_path):
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((5,)), layers.Dense(3)])
    model.compile("sgd", triplets)
    manifest = fits_alike(model, tmp_path, rows(8)[0], np.array([0, 1, 0, 1, 2, 2, 1, 1]))
    assert manifest.of_whole_batches == ("the loss 'triplets'",)


def test_a_loss_that_takes_no_target_at_all_is_named():
    def impossible(y_true, y_pred):
        raise ValueError("no way.")

    with pytest.raises(
        ModelError, match=r"The loss 'impossible' fails on output 'dense_1' of shape \(4, 3\).*: no way\. If the loss"
    ):
        build(network(impossible), batch_size=4)


def test_micro_batches_are_refused_where_the_loss_cannot_be_cut():
    reasons = [
        (dice, "computed from all rows of a batch together"),
        (losses.Dice(), "a quotient of sums over the whole batch"),
        (losses.MeanSquaredError(reduction=None), "no reduction"),
    ]
    for loss, why in reasons:
        with pytest.raises(UnsupportedModelError, match=rf"The loss '\w+' cannot be computed for a part.*{why}"):
            build(network(loss), batch_size=4, options=Options(micro_batch=2))


@pytest.mark.parametrize(
    ("loss", "rank", "together"),
    [
        (losses.MeanSquaredError(), 1, False),
        (losses.Dice(), 0, False),
        (squares, 2, False),
        (dice, 0, True),
        (weighted_by_the_batch, 1, True),
    ],
)
def test_what_a_loss_is_is_found_by_trying_it(loss, rank, together):
    output, loss = Port("output", (8, 3), "float32"), get_loss(loss, None, None)
    form = form_of(loss, target_of(loss, output, 0, "y"), output)
    assert (form.rank, form.together) == (rank, together)


@pytest.mark.parametrize(
    ("loss", "bounds"),
    [
        ("binary_crossentropy", (0, 1)),
        (losses.BinaryCrossentropy(from_logits=True, label_smoothing=0.1), (0, 1)),
        (losses.BinaryFocalCrossentropy(), (0, 1)),
        ("hinge", (-1, 1)),
        (losses.SquaredHinge(), (-1, 1)),
        ("categorical_crossentropy", None),
        ("mse", None),
        (squares, None),
    ],
)
def test_between_which_labels_a_loss_is_defined_is_known_of_keras_s_own(loss, bounds):
    output = Port("output", (8, 3), "float32")
    assert target_of(get_loss(loss, None, None), output, 0, "y").bounds == bounds


@pytest.mark.parametrize(("ignored", "metrics"), [(-1, ["accuracy"]), (255, []), (1, [])])
def test_positions_of_an_ignored_class_train_as_in_keras_whether_it_is_a_class_or_not(ignored, metrics, tmp_path):
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((6, 4)), layers.Dense(8, activation="tanh"), layers.Dense(3)])
    loss = losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=ignored)
    model.compile(keras.optimizers.SGD(0.1), loss, metrics=metrics)
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(12, 6, 4)).astype(np.float32), generator.integers(0, 3, (12, 6)).astype(np.int32)
    y[generator.random(y.shape) < 0.4] = ignored
    (target,) = fits_alike(model, tmp_path, x, y).targets
    assert (target.classes, target.ignored) == (3, ignored)


class Quiet(layers.Layer):
    """Adds a loss for large outputs, by rows."""

    def call(self, inputs):
        self.add_loss(keras.ops.sum(inputs**2, axis=-1))
        return inputs


def test_a_metric_beside_an_added_loss_only_is_refused_with_a_way_out_that_trains_as_in_keras(tmp_path):
    def quiet(**compiled):
        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.Input((6,)), layers.Dense(3), Quiet()])
        model.compile("sgd", metrics=["mae"], **compiled)
        return model

    with pytest.raises(UnsupportedModelError, match="looks at output 'quiet', which has no target") as caught:
        build(quiet(), batch_size=4)
    assert "`loss_weights` of 0" in str(caught.value.hint)

    x, y = np.random.default_rng(0).normal(size=(2, 8, 6)).astype(np.float32)
    model = quiet(loss="mse", loss_weights=0.0)
    fits_alike(model, tmp_path, x, y[:, :3], epochs=2)
    alone = quiet()
    alone.fit(x, y[:, :3], batch_size=4, epochs=2, shuffle=False, verbose=0)
    for weight, same in zip(model.weights, alone.weights, strict=True):
        np.testing.assert_allclose(weight, same, rtol=1e-6)
