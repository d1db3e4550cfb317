"""What the converter or a runtime does wrong without a word: with a fix switched off, the verification sees it.

If one of these fails because the file is right without the fix, TensorFlow or the runtime was mended: delete the fix.
They are slow tests, as only other versions of TensorFlow and the runtimes change what they find.
"""

from __future__ import annotations

from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from edgefl_converters.building.building import build
from edgefl_converters.emission.lowerings import pooling
from edgefl_converters.emission.registry import LOWERINGS
from edgefl_converters.training_step.keras_rewrites.rewriting import REWRITES, rewritten_keras
from edgefl_converters.verification.agreement import check_agreement
from interpreters import EXPECTED, needs_tflite_runtime

pytestmark = pytest.mark.slow
BATCH = 4


def compiled(*stack, loss="mse"):
    model = keras.Sequential(list(stack))
    model.compile(keras.optimizers.SGD(0.1), loss)
    return model


def wrong_on(model):
    """The runtimes on which a file does not train as in Keras."""
    report = check_agreement(model, build(model, batch_size=BATCH).data)
    return {runtime.name for runtime in report.runtimes if not runtime.passed}


def dense_without_bias():
    keras.utils.set_random_seed(1)
    return compiled(keras.Input((5,)), layers.Dense(8, "relu", use_bias=False), layers.Dense(3))


class Turned(layers.Layer):
    """Turns an image round in both directions."""

    def call(self, image):
        return tf.reverse(image, [1, 2])


def turned_image():
    keras.utils.set_random_seed(1)
    return compiled(keras.Input((3, 4, 2)), layers.Dense(2), Turned(), layers.Flatten(), layers.Dense(3))


def centred_rows():
    keras.utils.set_random_seed(1)
    inputs = keras.Input((6,))
    hidden = layers.Dense(BATCH)(inputs)
    model = keras.Model(inputs, hidden + keras.ops.mean(hidden, axis=-1, keepdims=True))
    model.compile(keras.optimizers.SGD(0.1), "mse")
    return model


def kept(op, inputs, context):
    """No lowering: the op stays as it is."""


def test_a_relu_after_a_product_without_bias_is_lost_unless_the_product_has_rank_three(monkeypatch):
    assert wrong_on(dense_without_bias()) == set()
    monkeypatch.setitem(LOWERINGS, "MatMul", kept)
    assert wrong_on(dense_without_bias()) == set(EXPECTED)


@needs_tflite_runtime
def test_tflite_runtime_cannot_turn_two_axes_at_once(monkeypatch):
    assert wrong_on(turned_image()) == set()
    monkeypatch.setitem(LOWERINGS, "ReverseV2", kept)
    assert "tflite-runtime" in wrong_on(turned_image())


def test_the_gradient_of_a_tied_maximum_goes_to_the_first(monkeypatch, kernel_parity):
    """Seen by the kernel's test: in training, ties last only where it makes no difference."""
    image = np.random.default_rng(1).integers(0, 2, (2, 6, 6, 2)).astype(np.float32)

    def gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            pooled = tf.nn.max_pool2d(x, 2, 2, "VALID")
        return tape.gradient(pooled, x)

    kernel_parity.add("tied", gradient, image)
    kernel_parity.check()
    first = pooling._first_maximum
    monkeypatch.setattr(pooling, "_first_maximum", lambda taps, *rest: first(taps[::-1], *rest)[::-1])
    assert min(kernel_parity.errors().values()) > 0.1


def test_keras_takes_a_column_for_a_bias(monkeypatch):
    assert wrong_on(centred_rows()) == set()
    as_it_is = replace(REWRITES["addition"], make=lambda original: (original,))
    monkeypatch.setitem(REWRITES, "addition", as_it_is)
    assert wrong_on(centred_rows()) == set(EXPECTED)


def test_written_out_keras_forgets_to_turn_the_mask_of_a_layer_that_runs_backwards():
    layer = layers.SimpleRNN(2, go_backwards=True, return_sequences=True, zero_output_for_mask=True, unroll=True)
    x, mask = np.ones((1, 3, 2), np.float32), np.asarray([[True, True, False]])
    alone = np.asarray(layer(x, mask=mask))
    with rewritten_keras("recurrence"):
        ours = np.asarray(layer(x, mask=mask))
    layer.unroll = False
    loop = np.asarray(layer(x, mask=mask))
    assert ours == pytest.approx(loop, abs=1e-6)
    assert not np.allclose(alone, loop, atol=1e-3)
