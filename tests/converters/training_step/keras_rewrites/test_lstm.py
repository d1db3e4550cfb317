"""LSTM layers run over a sequence at once, and their own gradient is Keras's."""

from __future__ import annotations

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from keras import layers

import edgefl
from edgefl_converters.building.building import build
from edgefl_converters.settings.options import Options
from edgefl_converters.training_step.keras_rewrites.rewriting import rewritten_keras
from edgefl_converters.training_step.makers import layer_of
from edgefl_converters.verification.agreement import check_agreement

FEW_ROWS, MANY_ROWS = 3, 24
"""Batches of which a step keeps rows, and columns."""

UNITS = 4
SETTINGS = [
    dict(zip(("return_sequences", "return_state", "go_backwards", "use_bias"), each, strict=True))
    for each in itertools.product([False, True], repeat=4)
]


def named(settings):
    return " ".join(name for name, on in settings.items() if on) or "none"


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def differentiated(layer, rows, steps=5, features=2, *, given=True, mask=None, training=False):
    """What a layer computes, and the gradient of all of it by weights, sequence and first states."""
    x = tf.constant(normal(1, rows, steps, features))
    states = [tf.constant(normal(seed, rows, UNITS)) for seed in (2, 3)]
    weights = [weight.value for weight in layer.trainable_variables]
    with tf.GradientTape() as tape:
        tape.watch([x, *states, *weights])
        outputs = layer(x, mask=mask, training=training, initial_state=states if given else None)
        outputs = outputs if isinstance(outputs, (tuple, list)) else [outputs]
        total = tf.add_n([tf.reduce_sum(each * normal(4 + place, *each.shape)) for place, each in enumerate(outputs)])
    return [*outputs, *tape.gradient(total, [x, *weights, *(states if given else [])])]


def check_like_keras(layer, rows, *, features=2, **settings):
    layer.build((rows, 5, features))
    for place, weight in enumerate(layer.trainable_variables):
        weight.assign(normal(10 + place, *weight.shape))
    draws = [variable for variable in layer.cell.non_trainable_variables if "seed" in variable.path]
    drawn = [variable.numpy() for variable in draws]
    expected = differentiated(layer, rows, features=features, **settings)
    for variable, value in zip(draws, drawn, strict=True):
        variable.assign(value)
    with rewritten_keras("recurrence", "lstm"):
        got = differentiated(layer, rows, features=features, **settings)
    for one, other in zip(expected, got, strict=True):
        assert np.asarray(other) == pytest.approx(np.asarray(one), rel=1e-4, abs=2e-5)


@pytest.mark.parametrize("rows", [FEW_ROWS, MANY_ROWS])
@pytest.mark.parametrize("settings", SETTINGS, ids=named)
def test_outputs_and_gradients_are_those_of_keras(settings, rows):
    check_like_keras(layers.LSTM(UNITS, **settings), rows)


@pytest.mark.parametrize("rows", [FEW_ROWS, MANY_ROWS])
@pytest.mark.parametrize("features", [1, 60])
def test_few_and_many_features_give_the_same(features, rows):
    check_like_keras(layers.LSTM(UNITS, return_sequences=True), rows, features=features, given=False)


@pytest.mark.parametrize("rows", [FEW_ROWS, MANY_ROWS])
def test_dropout_drops_what_keras_drops(rows):
    check_like_keras(layers.LSTM(UNITS, dropout=0.5, seed=1), rows, features=6, training=True)


@pytest.mark.parametrize(
    "settings",
    [{"activation": "relu"}, {"recurrent_activation": "hard_sigmoid"}, {"recurrent_dropout": 0.5, "seed": 1}],
    ids=str,
)
def test_an_unusual_layer_computes_what_keras_computes(settings):
    check_like_keras(layers.LSTM(UNITS, **settings), FEW_ROWS, training=True)


def test_a_masked_layer_computes_what_keras_computes():
    mask = np.asarray([[True] * 5, [True, True, False, False, False], [False, True, True, False, True]])
    check_like_keras(layers.LSTM(UNITS, return_sequences=True), FEW_ROWS, mask=mask)


def test_a_cell_of_ones_own_in_an_lstm_is_left_alone():
    class Louder(layers.LSTMCell):
        def call(self, inputs, states, training=False):
            output, states = super().call(inputs, states, training=training)
            return 2.0 * output, states

    layer = layers.LSTM(UNITS)
    layer.cell = Louder(UNITS)
    check_like_keras(layer, FEW_ROWS)


def test_keras_gets_its_layer_back():
    before = layers.LSTM.inner_loop
    build(small(3), batch_size=2)
    assert layers.LSTM.inner_loop is before


def compiled(inputs, outputs):
    model = keras.Model(inputs, outputs)
    model.compile(keras.optimizers.SGD(0.1), "mse")
    return model


def small(steps, *before):
    given = hidden = keras.Input((steps, 2))
    for layer in before:
        hidden = layer(hidden)
    return compiled(given, layers.Dense(1)(layers.LSTM(UNITS)(hidden)))


def stacked_in_both_directions():
    given = keras.Input((3, 3))
    hidden = layers.Bidirectional(layers.LSTM(UNITS, return_sequences=True, dropout=0.3))(layers.Dense(3)(given))
    return compiled(given, layers.Dense(1)(layers.LSTM(3)(hidden)))


def handing_over():
    source, target = keras.Input((3, 3)), keras.Input((2, 3))
    _, *states = layers.LSTM(UNITS, return_state=True)(source)
    decoded = layers.LSTM(UNITS, return_sequences=True)(target, initial_state=states)
    return compiled([source, target], layers.Dense(2)(decoded))


def used_twice_with_its_states():
    given = keras.Input((3, UNITS))
    shared = layers.LSTM(UNITS, return_sequences=True, return_state=True, go_backwards=True, use_bias=False)
    sequence, h, c = shared(shared(given)[0])
    return compiled(given, layers.Dense(1)(layers.Concatenate()([layers.Flatten()(sequence), h, c])))


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(stacked_in_both_directions, marks=pytest.mark.slow),
        handing_over,
        pytest.param(used_twice_with_its_states, marks=pytest.mark.slow),
    ],
)
def test_a_file_for_many_rows_trains_as_in_keras_on_both_runtimes(make):
    keras.utils.set_random_seed(1)
    model = make()
    check_agreement(model, build(model, batch_size=MANY_ROWS).data).require()


@pytest.mark.parametrize("target", ["litert-2", "tflite-2.14"])
def test_it_converts_for_each_target(tmp_path, target):
    edgefl.convert(small(3), tmp_path / "model.tflite", batch_size=MANY_ROWS, target=target, verify=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    "make", [lambda: small(3), pytest.param(stacked_in_both_directions, marks=pytest.mark.slow)], ids=["one", "stacked"]
)
def test_micro_batches_train_as_in_keras(make):
    keras.utils.set_random_seed(1)
    model = make()
    check_agreement(model, build(model, batch_size=4, options=Options(micro_batch=2)).data).require()


def operators(model, rows):
    """The names of the ops of a training step."""
    parsed = schema.ModelT.InitFromPackedBuf(build(model, batch_size=rows).data, 0)
    names = {value: name for name, value in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
    return [names[parsed.operatorCodes[each.opcodeIndex].builtinCode] for each in parsed.subgraphs[0].operators]


@pytest.mark.parametrize("rows", [FEW_ROWS, pytest.param(MANY_ROWS, marks=pytest.mark.slow)])
def test_a_step_of_the_sequence_is_24_ops(rows):
    # Both have a second group of steps, whose products are one.
    assert len(operators(small(10), rows)) - len(operators(small(7), rows)) == 3 * 24


def test_nothing_is_computed_for_a_gradient_that_nobody_wants():
    steps = 4
    of_dense, of_steps, of_weights = 3, steps + steps - 1, 1
    assert operators(small(steps), FEW_ROWS).count("BATCH_MATMUL") == of_dense + of_steps + of_weights
    below = 2  # the product of a layer below and its weights' gradient; the LSTM's input gradient
    again = operators(small(steps, layers.Dense(2)), FEW_ROWS).count("BATCH_MATMUL")
    assert again == of_dense + of_steps + of_weights + below + 1


def test_the_ops_of_the_gradient_belong_to_the_layer():
    layer = layers.LSTM(UNITS)
    layer.build((FEW_ROWS, 5, 2))

    def gradient(x):
        with tf.GradientTape() as tape:
            with tf.name_scope("edgefl_layer_7"):
                outputs = layer(x)
            total = tf.reduce_sum(outputs)
        return tape.gradient(total, layer.trainable_variables[0].value)

    with rewritten_keras("recurrence", "lstm"):
        traced = tf.function(gradient, autograph=False).get_concrete_function(tf.TensorSpec((FEW_ROWS, 5, 2)))
    products = [op.name for op in traced.graph.get_operations() if op.type == "MatMul"]
    assert len(products) > 2 * 5
    assert {layer_of(name) for name in products} == {7}
