"""Losses whose targets have another shape than the output train as in Keras once that shape is said."""

from __future__ import annotations

import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import edgefl
from beside_keras import fits_alike
from edgefl.errors import DataError, InvalidSettingError, ModelError, UnsupportedModelError, first_line
from edgefl_converters.building.building import build
from edgefl_converters.cli.arguments import parse_shapes
from edgefl_converters.cli.spelling import as_options
from edgefl_converters.settings.options import Options
from edgefl_device_runtime.training import TrainableModel


def likelihood(y_true, y_pred):
    """One number is measured, a mean and a deviation are predicted (Nix and Weigend 1994)."""
    mean, log_deviation = y_pred[:, :1], y_pred[:, 1:]
    return tf.reduce_mean(log_deviation + 0.5 * tf.exp(-2.0 * log_deviation) * (y_true - mean) ** 2)


def quantiles(y_true, y_pred):
    error = y_true - y_pred
    levels = tf.constant([0.1, 0.9])
    return tf.reduce_mean(tf.maximum(levels * error, (levels - 1.0) * error), axis=-1)


def cox(y_true, y_pred):
    """The partial likelihood of proportional hazards (Cox 1972): a time and an event, of which a risk is predicted."""
    time, event, risk = y_true[:, 0], y_true[:, 1], y_pred[:, 0]
    later = tf.cast(time[None, :] >= time[:, None], tf.float32)
    total = tf.math.log(tf.reduce_sum(later * tf.exp(risk)[None, :], axis=1))
    return tf.reduce_sum((total - risk) * event) / (tf.reduce_sum(event) + 1.0)


class OnlyObserved(keras.Model):
    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(y[:, 0] - self(x, training=True)[:, 0]) * y[:, 1])
        self.optimizer.apply(tape.gradient(loss, self.trainable_variables), self.trainable_variables)
        return {"loss": loss}


def network(loss, *units):
    keras.utils.set_random_seed(1)
    inputs = keras.Input((5,))
    hidden = layers.Dense(6, activation="tanh")(inputs)
    outputs = [layers.Dense(each, name=f"out{index}")(hidden) for index, each in enumerate(units)]
    model = keras.Model(inputs, outputs if len(units) > 1 else outputs[0])
    model.compile("sgd", loss)  # a bias that Cox's loss does not feel would follow its rounding under Adam
    return model


def own_step():
    keras.utils.set_random_seed(1)
    inputs = keras.Input((5,))
    model = OnlyObserved(inputs, layers.Dense(1)(inputs))
    model.compile("sgd")
    return model


def rows(*units):
    random = np.random.default_rng(7)
    return random.normal(size=(12, 5)).astype(np.float32), random.uniform(0.1, 1, (12, *units)).astype(np.float32)


@pytest.mark.parametrize(
    ("loss", "units", "wanted"), [(likelihood, 2, (1,)), (quantiles, 2, (1,)), (cox, 1, (2,)), ("mse", 3, (1,))]
)
def test_targets_of_a_shape_that_was_said_train_as_in_keras(loss, units, wanted, tmp_path):
    x, y = rows(*wanted)
    manifest = fits_alike(network(loss, units), tmp_path, x, y, target_shape=wanted)
    (target,) = (each for each in manifest.signatures["train"].inputs if each.name == "y")
    assert target.shape == (4, *wanted)


def test_each_output_has_a_shape_of_its_own_and_the_file_is_verified_with_them(tmp_path):
    model = network([likelihood, cox], 2, 1)
    shapes = {"out0": (1,), "y_out1": (2,)}
    edgefl.convert(model, tmp_path / "model.tflite", batch_size=4, target_shape=shapes)
    assert edgefl.verify(tmp_path / "model.tflite", model).passed
    with pytest.raises(InvalidSettingError, match="2 targets") as caught:
        build(model, batch_size=4, options=Options(target_shape=(2,)))
    assert caught.value.hint == "Name their outputs: out0=…, out1=…."
    with pytest.raises(InvalidSettingError, match="'out2', which is no output"):
        build(model, batch_size=4, options=Options(target_shape={"out2": (1,)}))


def test_a_step_of_the_models_own_is_given_targets_of_that_shape(tmp_path):
    with pytest.raises(UnsupportedModelError, match=r"OnlyObserved\.train_step cannot be traced") as caught:
        build(own_step(), batch_size=4)
    assert "`target_shape`" in caught.value.hint
    assert "{{" not in str(caught.value)
    model, (x, y) = own_step(), rows(2)
    edgefl.convert(model, tmp_path / "model.tflite", batch_size=4, target_shape=(2,), verify=False)
    device = TrainableModel(tmp_path / "model.tflite", runtime="ai-edge-litert")
    device.fit(x, y, epochs=3, shuffle=False)
    model.fit(x, y, batch_size=4, epochs=3, shuffle=False, verbose=0)
    for weight, variable in zip(device.get_weights(), model.weights, strict=True):
        np.testing.assert_allclose(weight, variable, rtol=1e-4, atol=1e-6)


def test_a_loss_that_fails_on_targets_like_the_output_leads_to_the_setting_and_so_does_the_device(tmp_path):
    with pytest.raises(ModelError, match="The loss 'cox' fails") as caught:
        build(network(cox, 1), batch_size=4)
    assert "`target_shape=(2,)`" in caught.value.hint
    assert "--target-shape 2" in as_options(caught.value.hint)
    assert not re.search(r"\{\{|\[Op:", str(caught.value))
    with pytest.raises(ModelError, match=r"'categorical_crossentropy' fails .* shape \(4, 2\), as `target_shape` says"):
        build(network("categorical_crossentropy", 3), batch_size=4, options=Options(target_shape=(2,)))
    edgefl.convert(network(likelihood, 2), tmp_path / "model.tflite", batch_size=4, verify=False)
    with pytest.raises(DataError) as caught:
        TrainableModel(tmp_path / "model.tflite", runtime="ai-edge-litert").fit(*rows(1))
    assert "convert the model with --target-shape 1" in str(caught.value)


def test_the_option_takes_a_shape_or_one_for_each_output():
    assert parse_shapes(["2"], "target") == (2,)
    assert parse_shapes([""], "target") == ()
    assert parse_shapes(["a=2", "b="], "target") == {"a": (2,), "b": ()}
    with pytest.raises(InvalidSettingError, match="of a target"):
        parse_shapes(["two"], "target")


def test_what_tensorflow_says_is_quoted_without_its_kernels():
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        tf.zeros((4, 1))[:, 1]
    assert first_line(caught.value) == "slice index 1 of dimension 1 out of bounds."
