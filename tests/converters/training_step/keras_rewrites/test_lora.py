"""Low-rank adapters compute what Keras's merged weights compute, by products of rank r alone."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from edgefl.inspecting.graph import read_graph
from edgefl.model_file import ModelFile
from edgefl_converters.building.building import build
from edgefl_converters.training_step.keras_rewrites.lora import REWRITES, factored_equations
from edgefl_converters.training_step.keras_rewrites.rewriting import rewritten_keras
from edgefl_converters.verification.agreement import check_agreement

NUMBERS = np.random.default_rng(0)
IDS = NUMBERS.integers(0, 7, (2, 5)).astype(np.int32)


def floats(*shape):
    return NUMBERS.normal(size=shape).astype(np.float32)


CASES = {
    "Dense": (layers.Dense(6, "tanh"), floats(4, 5)),
    "Dense on a sequence, without bias": (layers.Dense(6, use_bias=False), floats(2, 3, 5)),
    "EinsumDense of heads": (layers.EinsumDense("abc,cde->abde", (None, 2, 4), bias_axes="de"), floats(2, 3, 5)),
    "EinsumDense back from heads": (layers.EinsumDense("abcd,cde->abe", (None, 4), bias_axes="e"), floats(2, 3, 2, 5)),
    "EinsumDense with an ellipsis": (layers.EinsumDense("...x,xy->...y", (3, 4), activation="relu"), floats(2, 3, 5)),
    "EinsumDense that sums over the last": (layers.EinsumDense("abc,dc->abd", (None, 4)), floats(2, 3, 5)),
    "EinsumDense of experts": (layers.EinsumDense("aeb,ebc->aec", (3, 4)), floats(2, 3, 5)),
    "EinsumDense, element by element": (layers.EinsumDense("abc,bc->abc", (3, 5)), floats(2, 3, 5)),
    "Conv1D, causal": (layers.Conv1D(4, 3, padding="causal", dilation_rate=2, activation="relu"), floats(2, 9, 3)),
    "Conv2D": (layers.Conv2D(4, 3, strides=2, padding="same"), floats(2, 7, 6, 3)),
    "Conv2D of one tap": (layers.Conv2D(4, 1), floats(2, 5, 6, 3)),
    "Conv2D of groups": (layers.Conv2D(4, 3, groups=2), floats(2, 5, 6, 4)),
    "Conv3D": (layers.Conv3D(4, 2), floats(2, 4, 4, 5, 3)),
    "Embedding": (layers.Embedding(7, 4), IDS),
    "Embedding of numbers": (layers.Embedding(7, 4), IDS.astype(np.float32)),
    "ReversibleEmbedding": (layers.ReversibleEmbedding(7, 4), IDS),
}


def adapted(layer, inputs, rank=2, alpha=3):
    """The layer with adapters as they are after some steps: B is not zero, or A would have no gradient."""
    keras.utils.set_random_seed(1)
    generator = np.random.default_rng(1)
    layer.build(inputs.shape)
    layer.enable_lora(rank, lora_alpha=alpha)
    for variable in layer.trainable_variables:
        variable.assign(generator.normal(size=variable.shape))
    return layer


def test_rows_that_were_not_looked_up_move_as_with_merged_weights():
    """Adam goes on moving them; a gradient of the rows that were looked up would let it rest."""
    layer, inputs = layers.Embedding(7, 4), IDS
    adapted(layer, inputs)
    with rewritten_keras(*REWRITES), tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(inputs))
    assert isinstance(tape.gradient(loss, layer.lora_embeddings_a.value), tf.Tensor)


def results(layer, inputs, **options):
    with tf.GradientTape() as tape:
        outputs = layer(inputs, **options)
        loss = tf.reduce_sum(outputs * tf.cast(tf.reshape(tf.range(tf.size(outputs)), outputs.shape), tf.float32))
    return [outputs, *tape.gradient(loss, [each.value for each in layer.trainable_variables])]


def agree(factored, merged):
    for ours, theirs in zip(factored, merged, strict=True):
        ours, theirs = (np.asarray(tf.convert_to_tensor(each)) for each in (ours, theirs))
        assert np.abs(theirs).max() > 0
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=2e-6 * np.abs(theirs).max())


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_are_those_of_merged_weights(name):
    layer, inputs = CASES[name]
    adapted(layer, inputs)
    merged = results(layer, inputs)
    with rewritten_keras(*REWRITES):
        factored = results(layer, inputs)
    agree(factored, merged)


@pytest.mark.parametrize("cap", [None, 3.0])
def test_tied_embeddings_adapt_their_logits_too(cap):
    layer, hidden = layers.ReversibleEmbedding(7, 4, logit_soft_cap=cap), floats(2, 5, 4)
    adapted(layer, IDS)
    merged = results(layer, hidden, reverse=True)
    with rewritten_keras(*REWRITES):
        factored = results(layer, hidden, reverse=True)
    agree(factored, merged)


def test_channels_first_adapt_the_first_axis(kernel_parity):
    images = floats(2, 3, 6, 5)
    layer = adapted(layers.Conv2D(4, 3, data_format="channels_first"), images)
    turned = adapted(layers.Conv2D(4, 3), images.transpose(0, 2, 3, 1))
    turned.set_weights(layer.get_weights())

    def factored(x, *weights):
        with keras.StatelessScope(zip(layer.weights, weights)), rewritten_keras(*REWRITES):
            return layer(x)

    def merged(x, *weights):
        with keras.StatelessScope(zip(turned.weights, weights)):
            return tf.transpose(turned(tf.transpose(x, (0, 2, 3, 1))), (0, 3, 1, 2))

    kernel_parity.add("adapted", factored, images, *layer.get_weights(), reference=merged)
    kernel_parity.check()


@pytest.mark.parametrize(
    ("equation", "order"),
    [
        ("abc,cde->abde", (True, "abc,cdr->abdr", "abdr,re->abde")),
        ("abc,dc->abd", (False, "abc,rc->abr", "abr,dr->abd")),
        ("... r, r s -> ... s", (True, "...r,rt->...t", "...t,ts->...s")),
        ("abc,bc->abc", None),
    ],
)
def test_equations_are_split_where_a_result_of_rank_r_lies_between(equation, order):
    assert factored_equations(equation) == order


def test_no_matrix_of_the_size_of_a_frozen_one_is_computed_in_a_step():
    keras.utils.set_random_seed(1)
    tokens = keras.Input((5,), dtype="int32")
    x = layers.Embedding(47, 29)(tokens)
    x = layers.Add()([x, layers.MultiHeadAttention(2, 31)(x, x)])
    x = layers.Dense(37, "relu")(x)
    model = keras.Model(tokens, layers.Dense(43, "softmax")(layers.Conv1D(41, 3)(x)))
    for layer in model._flatten_layers(include_self=False):
        if hasattr(layer, "enable_lora"):
            layer.enable_lora(2)
        else:
            layer.trainable = False
    for layer in model._flatten_layers(include_self=False):
        for variable in layer._trainable_variables:
            if "lora" not in variable.name:
                variable.trainable = False
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
    built = build(model, batch_size=2)
    check_agreement(model, built.data).require()
    graph = read_graph(ModelFile(built.data))
    smallest = 29 * 37
    train = graph.signatures["train"]
    outputs = [(each.name, graph.tensors[train][place]) for each in graph.operators[train] for place in each.outputs]
    computed = [(name, tensor.shape) for name, tensor in outputs if tensor.size >= smallest]
    assert not computed
