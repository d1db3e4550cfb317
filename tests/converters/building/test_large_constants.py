"""Large frozen weights: the converter of TensorFlow is shown placeholders, and the file is what it is without them."""

from __future__ import annotations

import hashlib
import math
from collections import Counter

import keras
import numpy as np
import pytest
from keras import layers

from edgefl.inspecting.graph import read_graph
from edgefl.model_file import ModelFile
from edgefl_converters import FineTuning
from edgefl_converters.building.building import build
from edgefl_converters.flatbuffer.file import FlatModel
from edgefl_converters.settings.options import Options
from edgefl_converters.training_step.selection import fine_tuned
from edgefl_converters.verification.agreement import check_agreement
from interpreters import EXPECTED

BATCH = 4
LARGE = 512
"""Bytes from which weights are large here, so that small models have some."""
SIGNATURES = ("train", "evaluate", "infer")


class Tied(layers.Layer):
    """A square kernel as it is and transposed, as embeddings that are tied to an output are."""

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], shape[-1]), name="kernel")

    def call(self, inputs):
        return keras.ops.tanh(inputs @ self.kernel) @ keras.ops.transpose(self.kernel)


def squares():
    """Kernels and filters that are square, so that nothing but numbers tells them from transposed ones."""
    keras.utils.set_random_seed(5)
    inputs = keras.Input((6, 6, 16))
    x = layers.Dense(16, activation="tanh", name="first")(inputs)
    x = layers.Conv2D(16, 1, activation="tanh", name="point")(x)
    x = layers.Conv2D(16, 3, activation="tanh", name="square")(x)
    x = Tied(name="tied")(layers.GlobalAveragePooling2D()(x))
    x = layers.Dense(16, use_bias=False, activation="relu", name="dense")(x)
    model = keras.Model(inputs, layers.Dense(3, activation="softmax", name="head")(x))
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
    return model


def convolutions():
    """Normalisation and activations behind convolutions of every kind, before, between and behind what is trained."""
    keras.utils.set_random_seed(6)
    inputs = keras.Input((12, 12, 8))
    x = layers.Conv2D(24, 3, strides=2, padding="same", use_bias=False, name="stem")(inputs)
    x = layers.ReLU()(layers.BatchNormalization(name="stem_norm")(x))
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same", use_bias=False, name="depthwise")(x)
    x = layers.ReLU(6.0)(layers.BatchNormalization(scale=False, name="depthwise_norm")(x))
    x = layers.Conv2D(16, 3, groups=2, name="grouped")(x)
    x = layers.BatchNormalization(name="grouped_norm")(x)
    x = layers.Conv2D(16, 1, activation="tanh", name="middle")(x)
    x = layers.Conv2D(24, 3, strides=2, padding="same", name="behind")(x)
    x = layers.Add()(
        [layers.BatchNormalization(name="norm")(x), layers.Conv2D(24, 1, strides=2, name="beside")(x[:, :3])]
    )
    x = layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, layers.Dense(4, activation="softmax", name="head")(x))
    generator = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.set_weights([generator.uniform(0.5, 2, each.shape) for each in layer.weights])
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
    return model


def sequences():
    """An Embedding, recurrent layers whose weights are joined and split, and a projection of several dimensions."""
    keras.utils.set_random_seed(7)
    tokens = keras.Input((5,), dtype="int32")
    x = layers.Embedding(40, 16, name="embedding")(tokens)
    x = layers.LSTM(12, return_sequences=True, name="lstm")(x)
    x = layers.GRU(12, return_sequences=True, name="gru")(x)
    x = layers.MultiHeadAttention(2, 12, name="attention")(x, x)
    x = layers.Flatten()(layers.Conv1D(16, 3, name="conv")(x))
    model = keras.Model(tokens, layers.Dense(3, activation="softmax", name="head")(x))
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


MODELS = {
    "squares": (squares, FineTuning(trainable=["first", "head"])),
    "convolutions": (convolutions, FineTuning(trainable=["middle", "head"])),
    "sequences": (sequences, FineTuning(lora_rank=2)),
}


def built(name, large, **options):
    keras.backend.clear_session()  # which counts layers
    make, tuning = MODELS[name]
    with fine_tuned(make(), tuning) as model:
        return build(model, batch_size=BATCH, options=Options(tuning, **options), large=large)


@pytest.fixture(scope="module", params=list(MODELS))
def both(request):
    """A file that was made with placeholders, and one of the same model without."""
    return request.param, built(request.param, LARGE), built(request.param, math.inf)


def constants(data):
    """The digests of all constants of a file but its metadata."""
    flat = FlatModel(data)
    used = {tensor.buffer for subgraph in flat.subgraphs for tensor in subgraph.tensors}
    held = [flat.model.buffers[index].data for index in sorted(used)]
    return Counter(hashlib.sha256(bytes(each)).hexdigest() for each in held if each is not None and len(each) >= LARGE)


def test_the_ops_are_those_that_the_converter_makes_of_constants(both):
    _, hidden, shown = both
    for signature in SIGNATURES:
        expected = Counter(read_graph(ModelFile(shown.data)).count(signature))
        assert Counter(read_graph(ModelFile(hidden.data)).count(signature)) == expected, signature
    assert hidden.makers == shown.makers


def test_the_constants_are_the_same_to_the_last_bit_and_each_lies_there_once(both):
    _, hidden, shown = both
    found = constants(hidden.data)
    assert found == constants(shown.data)
    assert set(found.values()) == {1}


def test_square_kernels_used_plain_and_transposed_end_with_the_right_numbers():
    make, tuning = MODELS["squares"]
    file = built("squares", LARGE)
    with fine_tuned(make(), tuning) as model:
        kernel = np.array(model.model.get_layer("tied").kernel)
        report = check_agreement(model, file.data)
    report.require()
    assert [each.ran for each in report.runtimes] == [True] * len(EXPECTED)
    assert report.runtimes[0].comparisons
    assert file.data.count(kernel.tobytes()) == 1
    assert file.data.count(np.ascontiguousarray(kernel.T).tobytes()) <= 1


def test_large_frozen_weights_can_be_stored_in_fewer_bytes():
    hidden, shown = (built("convolutions", large, quantize_frozen="int8") for large in (LARGE, math.inf))
    assert constants(hidden.data) == constants(shown.data)
    assert len(hidden.data) < len(hidden.float32)


def test_the_same_model_gives_the_same_bytes():
    assert built("squares", LARGE).data == built("squares", LARGE).data
