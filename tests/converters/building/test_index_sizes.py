"""A file says of which numbers of its inputs an Embedding has only so many entries."""

from __future__ import annotations

import keras
import pytest
from keras import layers, ops

from edgefl.model_file import ModelFile
from edgefl_converters.building.building import build


def words():
    tokens = keras.Input((6,), dtype="int32", name="tokens")
    return tokens, layers.GlobalAveragePooling1D()(layers.Embedding(50, 3)(tokens))


def cut_out_of_a_table():
    """The second and the last column are looked up, the others are measured."""
    table = keras.Input((4,), name="table")
    person = layers.Flatten()(layers.Embedding(7, 2)(table[:, 1:2]))
    place = layers.Embedding(9, 2)(layers.Reshape(())(table[:, -1:]))
    return table, layers.Concatenate()([person, place, table[:, :1], table[:, 2:3]])


def looked_up_twice():
    tokens = keras.Input((2, 3), dtype="int32", name="tokens")
    turned = layers.Permute((2, 1))(tokens)
    both = [layers.Flatten()(layers.Embedding(size, 2)(each)) for size, each in ((20, tokens), (11, turned))]
    return tokens, layers.Concatenate()(both)


def two_inputs():
    user, item = keras.Input((1,), name="user"), keras.Input((1,), name="item", dtype="int32")
    rating = keras.Input((2,), name="rating")
    beside = layers.Concatenate()([layers.Flatten()(layers.Embedding(5, 2)(user)), rating])
    return [user, item, rating], layers.Concatenate()([layers.Flatten()(layers.Embedding(8, 2)(item)), beside])


class Vocabulary(layers.Layer):
    """Keeps its Embedding to itself, and lets unknown words be the last one."""

    def __init__(self, bounded):
        super().__init__()
        self.bounded, self.table = bounded, layers.Embedding(12, 3)

    def call(self, tokens):
        return self.table(ops.minimum(tokens, 11) if self.bounded else ops.cast(tokens, "int32"))


def inside(bounded):
    tokens = keras.Input((5,), name="tokens")
    return tokens, layers.Flatten()(Vocabulary(bounded)(tokens))


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (words, {"tokens": 50}),
        (cut_out_of_a_table, {"table": (None, 7, None, 9)}),
        (looked_up_twice, {"tokens": 11}),
        (two_inputs, {"user": 5, "item": 8}),
        (lambda: inside(False), {"tokens": 12}),
        (lambda: inside(True), {}),
    ],
)
def test_what_is_looked_up_is_told_by_the_file(make, expected):
    inputs, hidden = make()
    model = keras.Model(inputs, layers.Dense(1)(hidden))
    model.compile("sgd", "mse")
    assert ModelFile(build(model, batch_size=2).data).manifest.index_sizes == expected
