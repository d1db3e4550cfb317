"""Patterns find variables by what users call them."""

from __future__ import annotations

import keras
import pytest
from keras import layers

from edgefl.errors import InvalidSettingError
from edgefl_converters.models.named_model import NamedModel
from edgefl_converters.models.variable_patterns import choose


@pytest.fixture(scope="module")
def model():
    """A model within a model, attention, normalisation, and a head that is called as a layer of the inner one."""
    inner = keras.Sequential(
        [keras.Input((6, 8)), layers.Dense(8, name="head"), layers.BatchNormalization(name="norm")], name="block"
    )
    x = keras.Input((6, 8))
    y = layers.Add()([x, layers.MultiHeadAttention(2, 4, name="attention")(x, x)])
    y = layers.Dropout(0.5, name="drop")(inner(y))
    y = layers.Bidirectional(layers.LSTM(3, name="lstm"), name="both")(y)
    return keras.Model(x, layers.Dense(2, name="head")(y))


def found(model, *patterns, also=lambda each: True):
    variables = NamedModel(model).described
    return [variables[position].name for position in sorted(choose(patterns, variables, "`trainable`", also=also))]


def test_names_are_those_of_the_model_file(model):
    names = [name for name in NamedModel(model).variables if "seed_generator" not in name]
    assert [each.name for each in NamedModel(model).described] == names


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("attention/query/bias", ["attention/query/bias"]),
        ("query", ["attention/query/kernel", "attention/query/bias"]),
        ("block/norm/*mean", ["block/norm/moving_mean"]),
        ("BatchNormalization", [f"block/norm/{name}" for name in ("gamma", "beta", "moving_mean", "moving_variance")]),
        ("head", ["block/head/kernel", "block/head/bias", "head/kernel", "head/bias"]),
        ("/head", ["head/kernel", "head/bias"]),
        ("/head/kernel", ["head/kernel"]),
        ("block/head", ["block/head/kernel", "block/head/bias"]),
        ("gamma", ["block/norm/gamma"]),
        ("b*/gamma", ["block/norm/gamma"]),  # a star goes across slashes
        ("h[ae]ad/bias", ["block/head/bias", "head/bias"]),
    ],
)
def test_a_pattern_is_a_name_a_layer_a_kind_of_layer_or_a_kind_of_weight(model, pattern, expected):
    assert found(model, pattern) == expected


def test_a_layer_means_everything_within(model):
    assert len(found(model, "block")) == 6
    assert len(found(model, "Sequential")) == 6
    assert len(found(model, "attention")) == len(found(model, "MultiHeadAttention")) == 8
    assert found(model, "both") == found(model, "Bidirectional")
    assert set(found(model, "*forward_lstm*")) < set(found(model, "both"))


def test_several_patterns_add_up(model):
    assert found(model, "gamma", "query/bias") == ["attention/query/bias", "block/norm/gamma"]


def test_a_pattern_that_matches_nothing_is_answered_with_the_nearest_names(model):
    with pytest.raises(InvalidSettingError, match=r"`trainable` 'atention' matches nothing\. Did you mean 'attention'"):
        found(model, "atention")
    with pytest.raises(InvalidSettingError, match="'BatchNormalization'"):
        found(model, "batchnormalization")
    with pytest.raises(InvalidSettingError, match=r"Layers that could be meant: .*attention/query.* in all\)"):
        found(model, "zzz")


def test_a_pattern_that_matches_only_what_cannot_be_meant_matches_nothing(model):
    biases = lambda each: each.name.endswith("bias")  # noqa: E731
    assert found(model, "/head", also=biases) == ["head/bias"]
    with pytest.raises(InvalidSettingError, match="'gamma' matches nothing"):
        found(model, "gamma", also=biases)


def numbered(first):
    """Three layers that Keras numbers from somewhere, as in a notebook in which other models were made before."""
    stack = [
        keras.Input((2,)),
        *(layers.Dense(2, name=f"dense_{first + index}" if first else None) for index in (0, 1, 2)),
    ]
    return keras.Sequential(stack)


def test_a_number_that_keras_and_the_file_understand_differently_is_refused():
    model = numbered(2)
    described = NamedModel(model).described
    assert [each.name for each in described[::2]] == [
        "dense/kernel",
        "dense_1/kernel",
        "dense_2/kernel",
    ]
    for pattern in ("dense_2", "dense_?"):
        with pytest.raises(InvalidSettingError, match=r"means two things: Keras calls 'dense/kernel' so.*begin .* a /"):
            found(model, pattern)
    assert found(model, "/dense_2") == ["dense_2/kernel", "dense_2/bias"]
    assert found(model, "dense_4") == ["dense_2/kernel", "dense_2/bias"]
    assert found(model, "dense") == ["dense/kernel", "dense/bias"]
    assert len(found(model, "dense*")) == 6


def test_layers_are_counted_in_the_order_of_the_model(model):
    order = {}
    for each in NamedModel(model).described:
        order.setdefault(each.name.rpartition("/")[0], each.index)
    assert order["attention/query"] < order["block/head"] < order["block/norm"] < order["head"]
    assert order["head"] == max(order.values())
