"""GRU layers run over a sequence at once, with or without a mask, and their own gradient is Keras's."""

from __future__ import annotations

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from edgefl.model_file import ModelFile
from edgefl_converters.building.building import build
from edgefl_converters.flatbuffer.reading import read_model
from edgefl_converters.training_step.keras_rewrites import gru
from edgefl_converters.training_step.keras_rewrites.rewriting import rewritten_keras
from edgefl_converters.verification.agreement import check_agreement

UNITS, ROWS, STEPS = 4, 3, 6
MASK = np.asarray([[True] * 6, [True, True, False, False, False, False], [False, True, True, False, True, False]])
SETTINGS = [
    dict(zip(("return_sequences", "return_state", "go_backwards", "use_bias"), each, strict=True))
    for each in itertools.product([False, True], repeat=4)
]


def named(settings):
    return " ".join(name for name, on in settings.items() if on) or "none"


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def differentiated(layer, features=2, *, given=True, mask=None, training=False):
    """What a layer computes, and the gradient of all of it by weights, sequence and first state."""
    x, state = tf.constant(normal(1, ROWS, STEPS, features)), tf.constant(normal(2, ROWS, UNITS))
    weights = [weight.value for weight in layer.trainable_variables]
    with tf.GradientTape() as tape:
        tape.watch([x, state, *weights])
        outputs = layer(x, mask=mask, training=training, initial_state=state if given else None)
        outputs = outputs if isinstance(outputs, (tuple, list)) else [outputs]
        total = tf.add_n([tf.reduce_sum(each * normal(4 + place, *each.shape)) for place, each in enumerate(outputs)])
    return [*outputs, *tape.gradient(total, [x, *weights, *([state] if given else [])])]


@pytest.fixture
def taken(monkeypatch):
    """The sequences that were computed at once."""
    found = []
    original = gru._over_time

    def over_time(layer, *others):
        found.append(layer)
        return original(layer, *others)

    monkeypatch.setattr(gru, "_over_time", over_time)
    return found


def check_like_keras(layer, *, features=2, **settings):
    layer.build((ROWS, STEPS, features))
    for place, weight in enumerate(layer.trainable_variables):
        weight.assign(normal(10 + place, *weight.shape))
    draws = [variable for variable in layer.cell.non_trainable_variables if "seed" in variable.path]
    drawn = [variable.numpy() for variable in draws]
    expected = differentiated(layer, features, **settings)
    for variable, value in zip(draws, drawn, strict=True):
        variable.assign(value)
    with rewritten_keras("recurrence", "gru"):
        got = differentiated(layer, features, **settings)
    for one, other in zip(expected, got, strict=True):
        assert np.asarray(other) == pytest.approx(np.asarray(one), rel=1e-4, abs=2e-5)


@pytest.mark.parametrize("settings", SETTINGS, ids=named)
def test_outputs_and_gradients_are_those_of_keras(taken, settings):
    check_like_keras(layers.GRU(UNITS, **settings))
    assert taken


@pytest.mark.parametrize("settings", SETTINGS, ids=named)
def test_masked_outputs_and_gradients_are_those_of_keras(taken, settings):
    check_like_keras(layers.GRU(UNITS, **settings), mask=MASK, given=False)
    assert taken


def test_dropout_drops_what_keras_drops(taken):
    check_like_keras(layers.GRU(UNITS, dropout=0.5, seed=1), features=6, training=True)
    assert taken


@pytest.mark.parametrize(
    ("settings", "call"),
    [
        ({"activation": "relu"}, {}),
        ({"recurrent_activation": "hard_sigmoid"}, {}),
        ({"reset_after": False}, {}),
        ({"recurrent_dropout": 0.5, "seed": 1}, {}),
        # Before the first step that counts the output is zero, and the state is not.
        ({"return_sequences": True}, {"mask": MASK}),
    ],
    ids=str,
)
def test_an_unusual_layer_computes_what_keras_computes(taken, settings, call):
    check_like_keras(layers.GRU(UNITS, **settings), training=True, **call)
    assert not taken


def test_a_cell_of_ones_own_in_a_gru_is_left_alone(taken):
    class Louder(layers.GRUCell):
        def call(self, inputs, states, training=False):
            output, states = super().call(inputs, states, training=training)
            return 2.0 * output, states

    layer = layers.GRU(UNITS)
    layer.cell = Louder(UNITS)
    check_like_keras(layer)
    assert not taken


def masked(steps):
    model = keras.Sequential(
        [
            keras.Input((steps,)),
            layers.Embedding(7, 3, mask_zero=True),
            layers.Bidirectional(layers.GRU(UNITS, return_sequences=True)),
            layers.GRU(UNITS),
            layers.Dense(2),
        ]
    )
    model.compile(keras.optimizers.SGD(0.1), "mse")
    return model


def test_a_file_with_masks_trains_as_in_keras_on_both_runtimes():
    keras.utils.set_random_seed(1)
    model = masked(4)
    check_agreement(model, build(model, batch_size=ROWS).data).require()


def operators(steps):
    """How many ops each signature has."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [keras.Input((steps,)), layers.Embedding(7, 3, mask_zero=True), layers.GRU(UNITS), layers.Dense(2)]
    )
    model.compile(keras.optimizers.SGD(0.1), "mse")
    data = build(model, batch_size=ROWS).data
    assert ModelFile(data).manifest.batch_size == ROWS
    file = read_model(data)
    return {bytes(each.signatureKey): len(file.subgraphs[each.subgraphIndex].operators) for each in file.signatureDefs}


@pytest.mark.slow
def test_a_masked_step_of_the_sequence_is_33_ops_of_training_and_15_of_inference():
    # Both have a second group of steps, whose products are one.
    few, more = operators(7), operators(10)
    assert more[b"train"] - few[b"train"] <= 3 * 33
    assert more[b"infer"] - few[b"infer"] <= 3 * 15
