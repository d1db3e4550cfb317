"""Recurrent layers are written out, whatever they were built with."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from keras.src import backend

from edgefl.errors import UnsupportedModelError
from edgefl_converters.building.building import build
from edgefl_converters.training_step.keras_rewrites.recurrence import LONGEST
from edgefl_converters.training_step.keras_rewrites.rewriting import rewritten_keras
from edgefl_converters.verification.agreement import check_agreement


def recurrent(length, **settings):
    model = keras.Sequential([keras.Input((length, 2)), layers.LSTM(3, **settings), layers.Dense(1)])
    model.compile("sgd", "mse")
    return model


def test_a_saved_model_with_a_loop_trains_as_in_keras(tmp_path):
    recurrent(6).save(tmp_path / "model.keras")
    model = keras.models.load_model(tmp_path / "model.keras")
    check_agreement(model, build(model, batch_size=4).data).require()


def test_keras_gets_its_loop_back():
    before = backend.rnn
    build(recurrent(3), batch_size=2)
    assert backend.rnn is before


@pytest.mark.parametrize("kind", [layers.LSTM, layers.GRU, layers.SimpleRNN])
@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("unroll", [False, True])
def test_written_out_it_computes_what_keras_computes_with_masks(kind, backwards, unroll):
    """Keras's loop, and its own way of writing it out, which masks other outputs of what goes backwards."""
    settings = {"return_sequences": True, "return_state": True, "zero_output_for_mask": True, "unroll": unroll}
    layer = kind(3, go_backwards=backwards, **settings)
    x = np.random.default_rng(1).normal(size=(4, 6, 2)).astype(np.float32)
    mask = np.random.default_rng(2).integers(0, 2, (4, 6)).astype(bool)
    kept = layer(x, mask=mask)
    with rewritten_keras("recurrence"):
        written_out = layer(x, mask=mask)
    for expected, got in zip(kept, written_out, strict=True):
        assert np.asarray(got) == pytest.approx(np.asarray(expected), abs=1e-6)


@pytest.mark.parametrize("settings", [{}, {"return_sequences": True, "go_backwards": True}], ids=["last", "all"])
def test_a_mask_of_places_of_an_image_is_that_of_keras(settings):
    keras.utils.set_random_seed(1)
    stack = [layers.Masking(), layers.ConvLSTM2D(2, 3, padding="same", **settings), layers.Flatten(), layers.Dense(1)]
    model = keras.Sequential([keras.Input((3, 4, 4, 1)), *stack])
    images = np.random.default_rng(1).normal(size=(2, 3, 4, 4, 1)).astype(np.float32)
    images[0, 1:], images[1, 0, :2] = 0, 0
    expected = model(images)
    with rewritten_keras("recurrence"):
        found = tf.function(lambda given: model(given))(images)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_a_sequence_that_is_too_long_is_refused_with_the_limit_and_the_way_out():
    with pytest.raises(UnsupportedModelError, match=f"{LONGEST + 1} steps; up to {LONGEST}") as caught:
        build(recurrent(LONGEST + 1), batch_size=2)
    assert "shorter" in str(caught.value.hint)


def test_state_that_is_carried_between_batches_is_refused():
    given = keras.Input(batch_shape=(4, 3, 2))
    model = keras.Model(given, layers.Dense(1)(layers.LSTM(3, stateful=True)(given)))
    model.compile("sgd", "mse")
    with pytest.raises(UnsupportedModelError, match="stateful"):
        build(model, batch_size=4)


def test_a_sum_of_products_is_one_product(kernel_parity):
    generator = np.random.default_rng(3)
    pairs = [generator.normal(size=shape).astype(np.float32) for shape in [(4, 3), (4, 5)] * 6]

    def summed(*matrices):
        products = [tf.matmul(a, b, transpose_a=True) for a, b in zip(matrices[::2], matrices[1::2])]
        return tf.add_n(products)

    kernel_parity.add("six steps", summed, *pairs)
    kernel_parity.check()
