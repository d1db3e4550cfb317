"""Layers without a family of their own: dense, embeddings, activations, and those that only pass something on."""

from __future__ import annotations

import keras
from keras import layers, ops

from keras_coverage.models import regression, tokens
from keras_coverage.rows import base, covers, refuses


def before() -> keras.layers.Layer:
    """A layer that can learn only if a gradient reaches it."""
    return layers.Dense(4)


covers(
    layers.Dense,
    {
        "relu": lambda: regression((5,), layers.Dense(4, "relu"), first=before()),
        "without bias": lambda: regression((5,), layers.Dense(4, "relu", use_bias=False), first=before()),
        "on a sequence": lambda: regression((3, 5), layers.Dense(4, "tanh"), first=before()),
    },
)
covers(
    layers.EinsumDense,
    {
        "heads": lambda: regression((3, 4), layers.EinsumDense("abc,cde->abde", (3, 2, 5), bias_axes="de")),
        "without bias": lambda: regression((3, 4), layers.EinsumDense("abc,cd->abd", (3, 5)), first=before()),
    },
)
covers(
    layers.Embedding,
    {
        "tokens": lambda: tokens(5, layers.Embedding(7, 4)),
        "padding tokens masked": lambda: tokens(
            5, layers.Embedding(7, 4, mask_zero=True), layers.GlobalAveragePooling1D()
        ),
        "used twice": lambda: _twice(layers.Embedding(7, 4)),
    },
)
covers(
    layers.ReversibleEmbedding,
    {"tied": lambda: _tied(True), "untied": lambda: _tied(False)},
)
covers(layers.InputLayer, {"input": lambda: regression((5,), before())})
covers(layers.Identity, {"identity": lambda: regression((5,), layers.Identity(), first=before())})
covers(
    layers.Lambda,
    {"a function": lambda: regression((5,), layers.Lambda(lambda x: x * ops.sigmoid(x)), first=before())},
    note="From Python or module:function; code is not run from a .keras file",
)
covers(layers.Activation, {"softplus": lambda: regression((5,), layers.Activation("softplus"), first=before())})
covers(
    layers.Softmax,
    {
        "last axis": lambda: regression((3, 4), layers.Softmax(), first=before()),
        "other axes": lambda: regression((3, 4), layers.Softmax(axis=(1, 2)), first=before()),
    },
)
covers(
    layers.ReLU,
    {
        "plain": lambda: regression((5,), layers.ReLU(), first=before()),
        "bounded, leaking, shifted": lambda: regression((5,), layers.ReLU(0.6, 0.1, 0.2), first=before()),
    },
)
covers(layers.LeakyReLU, {"0.2": lambda: regression((5,), layers.LeakyReLU(0.2), first=before())})
covers(
    layers.PReLU,
    {
        "for each": lambda: regression((3, 4), layers.PReLU("uniform"), first=before()),
        "shared axes": lambda: regression((3, 4), layers.PReLU("uniform", shared_axes=[1]), first=before()),
    },
)
covers(layers.ELU, {"0.7": lambda: regression((5,), layers.ELU(0.7), first=before())})
covers(
    layers.ActivityRegularization,
    {"l1 and l2": lambda: regression((5,), layers.ActivityRegularization(0.01, 0.02), first=before())},
)
covers(layers.Rescaling, {"rescaling": lambda: regression((5,), layers.Rescaling(0.5, 1.0), first=before())})
covers(
    layers.Wrapper,
    {"around Dense": lambda: regression((5,), Around(before()), first=before())},
    note="Its subclasses",
)
covers(layers.Layer, {"a layer of your own": lambda: regression((5,), Scaled(), first=before())}, note="Its subclasses")
base(layers.InputSpec, "A description of an input")
for foreign in (layers.JaxLayer, layers.FlaxLayer, layers.TorchModuleWrapper):
    refuses(foreign, "Computed by another framework than TensorFlow: there is no TensorFlow graph of it")
refuses(layers.TFSMLayer, "A SavedModel, whose variables Keras does not know; load it as a Keras model", gradient=False)


class Around(layers.Wrapper):
    def call(self, x: object) -> object:
        return self.layer(x) * 2.0


class Scaled(layers.Layer):
    def build(self, shape: tuple[int, ...]) -> None:
        self.scale = self.add_weight(shape=(shape[-1],), initializer="ones", name="scale")

    def call(self, x: object) -> object:
        return ops.tanh(x * self.scale)


def _twice(embedding: layers.Layer) -> keras.Model:
    left, right = keras.Input((3,), dtype="int32"), keras.Input((3,), dtype="int32")
    both = layers.Dot(axes=(1, 1))([layers.Flatten()(embedding(each)) for each in (left, right)])
    model = keras.Model([left, right], both)
    model.compile(keras.optimizers.SGD(0.1), "mse")
    return model


def _tied(tie: bool) -> keras.Model:
    words = keras.Input((3,), dtype="int32")
    embedding = layers.ReversibleEmbedding(7, 4, tie_weights=tie)
    scores = embedding(layers.Dense(4, "tanh")(embedding(words)), reverse=True)
    model = keras.Model(words, scores)
    model.compile(keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model
