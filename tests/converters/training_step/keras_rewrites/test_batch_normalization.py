"""Normalising over a batch: Keras's numbers and exact derivatives, of fewer ops."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from keras.src.backend.tensorflow import nn as keras_nn

from edgefl.inspecting.graph import read_graph
from edgefl.model_file import ModelFile
from edgefl_converters.building.building import build
from edgefl_converters.training_step.keras_rewrites.rewriting import REWRITES, rewritten_keras


def derivatives(layer, x, upstream):
    """What a layer makes of an input in training, and the derivatives for its input and its weights."""
    x = tf.constant(x, layer.dtype)

    @tf.function(autograph=False)
    def run():
        with tf.GradientTape() as tape:
            tape.watch(x)
            output = layer(x, training=True)
            scored = tf.reduce_sum(output * tf.constant(upstream, layer.dtype))
        return output, tape.gradient(scored, [x, *(each.value for each in layer.trainable_variables)])

    output, gradients = run()
    moving = [np.array(each) for each in layer.non_trainable_variables]
    return [output.numpy(), *(each.numpy() for each in gradients), *moving]


def twins(shape, **settings):
    """The same layer in float32 and in float64."""
    made = [layers.BatchNormalization(dtype=dtype, **settings) for dtype in ("float32", "float64")]
    generator = np.random.default_rng(3)
    for layer in made:
        layer.build(shape)
    weights = [generator.uniform(0.5, 1.5, each.shape).astype("float32") for each in made[0].weights]
    for layer in made:
        layer.set_weights(weights)
    return made


@pytest.mark.parametrize("shape", [(6, 5), (4, 7, 3), (4, 6, 5, 3)], ids=len)
@pytest.mark.parametrize("settings", [{}, {"scale": False}, {"center": False}, {"scale": False, "center": False}])
def test_values_and_derivatives_are_exact(shape, settings):
    generator = np.random.default_rng(1)
    x, upstream = generator.normal(20.0, 1.0, shape).astype("float32"), generator.normal(size=shape).astype("float32")
    layer, exact = twins(shape, **settings)

    with rewritten_keras("batch_normalization"):
        got = derivatives(layer, x, upstream)

    for ours, expected in zip(got, derivatives(exact, x, upstream), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("settings", [{"axis": 1}, {"renorm": True}])
def test_other_kinds_of_normalisation_are_left_to_keras(settings):
    generator = np.random.default_rng(2)
    x, upstream = (generator.normal(size=(8, 4, 4, 4)).astype("float32") for _ in range(2))
    layer, exact = twins(x.shape, **settings)

    with rewritten_keras("batch_normalization"):
        got = derivatives(layer, x, upstream)

    for ours, expected in zip(got, derivatives(exact, x, upstream), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=2e-5)


def test_moments_of_other_axes_or_types_are_keras_own():
    x = tf.constant(np.random.default_rng(0).normal(size=(4, 5)), tf.float32)
    with rewritten_keras("batch_normalization"):
        assert keras.ops.moments(x, axes=[1], keepdims=True)[0].shape == (4, 1)
        assert keras.ops.moments(tf.cast(x, tf.float16), axes=[0])[0].dtype == tf.float16


def test_keras_is_as_before_when_it_is_over_whatever_happens():
    before = keras_nn.moments, keras_nn.batch_normalization
    with pytest.raises(KeyError), rewritten_keras("batch_normalization"):
        raise KeyError
    assert (keras_nn.moments, keras_nn.batch_normalization) == before


@pytest.mark.slow
def test_a_layer_takes_fewer_ops_in_a_file(monkeypatch):
    def ops():
        keras.utils.set_random_seed(3)
        model = keras.Sequential([keras.Input((8, 8, 2))])
        for _ in range(3):
            model.add(layers.Conv2D(4, 3, use_bias=False))
            model.add(layers.BatchNormalization())
        model.add(layers.Flatten())
        model.compile(keras.optimizers.SGD(0.1), "mse")
        return len(read_graph(ModelFile(build(model, batch_size=4).data)).operators[0])

    fewer = ops()
    monkeypatch.delitem(REWRITES, "batch_normalization")

    assert fewer <= ops() - 3 * 12
