"""Names that do not depend on what else a process has built."""

from __future__ import annotations

import keras
from hypothesis import given
from hypothesis import strategies as st
from keras import layers

from edgefl_converters.models.named_model import NamedModel
from edgefl_converters.models.naming import PathNames, signature_keys, snake_case, unique


@given(st.lists(st.text(alphabet="ab_1", max_size=4)))
def test_unique_names_are_unique_and_keep_their_place(names):
    result = unique(names)
    assert len(set(result)) == len(names)
    assert all(new.startswith(old) for new, old in zip(result, names, strict=True))


@given(st.lists(st.text(max_size=8)))
def test_signature_keys_are_unique_keyword_arguments(names):
    keys = signature_keys(names)
    assert len(set(keys)) == len(names)
    assert all(key.isidentifier() and key.isascii() and key[0].isalpha() for key in keys)


@given(st.sampled_from(["class", "self", "lambda", "3d", "a/b", ""]))
def test_keys_that_python_reserves_are_avoided(name):
    (key,) = signature_keys([name])
    exec(f"def call(runner, **kwargs): return kwargs\ncall(None, {key}=1)")


def make():
    inputs = keras.Input((4,))
    shared = layers.Dense(4)
    hidden = shared(layers.Dense(4, name="mine_2")(shared(inputs)))
    block = keras.Sequential([layers.Dense(3), layers.Dense(2)], name="block")
    return keras.Model(inputs, layers.Dense(1)(block(hidden)))


def test_layers_are_numbered_by_their_place_in_the_model():
    first, second = make(), make()
    names = [[PathNames(model)(each.path) for each in model.weights] for model in (first, second)]
    assert names[0] == names[1]
    assert {name.split("/")[0] for name in names[0]} == {"dense", "dense_1", "mine_2", "block"}
    assert "block/dense/kernel" in names[0]
    assert "block/dense_1/kernel" in names[0]


class Unnamed(layers.Layer):
    """Adds weights without naming them."""

    def build(self, shape):
        self.first = self.add_weight(shape=(shape[-1],))
        self.second = self.add_weight(shape=(shape[-1],))

    def call(self, x):
        return x * self.first + self.second


def test_names_survive_saving_and_loading():
    inputs = keras.Input((4,))
    block = keras.Sequential([keras.Input((4,)), layers.Dense(4), layers.Dropout(0.5), Unnamed()])
    model = keras.Model(inputs, layers.Dense(1)(Unnamed()(block(inputs))))

    config = keras.saving.serialize_keras_object(model)
    again = keras.saving.deserialize_keras_object(config, custom_objects={"Unnamed": Unnamed})

    assert [each.path for each in again.variables] != [each.path for each in model.variables]
    assert list(NamedModel(again).variables) == list(NamedModel(model).variables)
    assert {"sequential/dense/kernel", "sequential/unnamed/variable_1", "unnamed/variable", "dense/bias"} <= set(
        NamedModel(model).variables
    )


def test_names_are_made_as_keras_makes_them():
    for layer in (
        layers.Conv1D,
        layers.BatchNormalization,
        layers.Conv2DTranspose,
        layers.GlobalMaxPooling1D,
        layers.LSTM,
    ):
        keras.backend.clear_session()
        made = layer(2, 2).name if "Conv" in layer.__name__ else layer(2).name if layer is layers.LSTM else layer().name
        assert snake_case(layer.__name__) == made
