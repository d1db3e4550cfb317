"""Losses that Keras would run on an output and that cannot mean what was intended."""

from __future__ import annotations

import keras
import pytest
from keras import layers, losses

from edgefl.errors import ModelError
from edgefl_converters.models.loss_fit import require_fitting_loss


def compiled(loss, *last):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, activation="relu"), *last])
    model.compile("sgd", loss)
    return model


@pytest.mark.parametrize(
    ("loss", "last", "words"),
    [
        ("sparse_categorical_crossentropy", [layers.Dense(1, "sigmoid")], "at least two classes"),
        (losses.SparseCategoricalCrossentropy(), [layers.Dense(1, "sigmoid")], "at least two classes"),
        ("categorical_crossentropy", [layers.Dense(1)], "at least two classes"),
        ("categorical_crossentropy", [layers.Dense(3)], "activation='softmax' in the last layer"),
        (losses.sparse_categorical_crossentropy, [layers.Dense(3, "tanh")], "has activation 'tanh'"),
        ("categorical_crossentropy", [layers.Dense(3), layers.Reshape((3,))], "expects probabilities"),
        ("categorical_crossentropy", [layers.Dense(3), layers.ReLU()], "expects probabilities"),
        ("binary_crossentropy", [layers.Dense(1)], "activation='sigmoid' in the last layer"),
        ("binary_crossentropy", [layers.Dense(1, "softmax")], "always 1"),
    ],
)
def test_a_loss_that_the_output_cannot_serve_is_refused(loss, last, words):
    with pytest.raises(ModelError, match=words):
        require_fitting_loss(compiled(loss, *last))


@pytest.mark.parametrize(
    ("loss", "last"),
    [
        ("mse", [layers.Dense(1)]),
        ("binary_crossentropy", [layers.Dense(1, "sigmoid")]),
        ("binary_crossentropy", [layers.Dense(3, "sigmoid")]),
        ("categorical_crossentropy", [layers.Dense(3), layers.Softmax()]),
        ("categorical_crossentropy", [layers.Dense(3), layers.Activation("softmax"), layers.Dropout(0.1)]),
        (losses.CategoricalCrossentropy(from_logits=True), [layers.Dense(3)]),
        (losses.BinaryCrossentropy(from_logits=True), [layers.Dense(1)]),
    ],
)
def test_a_loss_that_fits_passes(loss, last):
    require_fitting_loss(compiled(loss, *last))


def test_the_output_of_a_nested_model_is_looked_into():
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    model = keras.Sequential([keras.Input((4,)), inner])
    model.compile("sgd", "categorical_crossentropy")
    with pytest.raises(ModelError, match="expects probabilities"):
        require_fitting_loss(model)


def test_losses_by_names_that_are_no_outputs_are_refused():
    source = keras.Input((4,))
    model = keras.Model(source, [layers.Dense(1, name="left")(source), layers.Dense(2, name="right")(source)])
    model.compile("sgd", {"middle": "mse"})
    with pytest.raises(ModelError, match=r"'middle'.*'left', 'right'"):
        require_fitting_loss(model)


def with_a_dict_of_outputs(**given):
    inputs = keras.Input((4,))
    outputs = {"kind": layers.Dense(3, "softmax", name="b")(inputs), "age": layers.Dense(1, name="a")(inputs)}
    model = keras.Model(inputs, outputs)
    model.compile("sgd", given)
    return model


def test_losses_go_by_the_keys_of_a_dict_of_outputs():
    require_fitting_loss(with_a_dict_of_outputs(kind="categorical_crossentropy", age="mse"))
    with pytest.raises(ModelError, match="output 'a' has shape"):
        require_fitting_loss(with_a_dict_of_outputs(kind="categorical_crossentropy", age="categorical_crossentropy"))


def test_losses_for_neither_keys_nor_names_are_refused_with_the_keys():
    with pytest.raises(ModelError, match="losses are for 'knd', the model's outputs are 'age', 'kind'"):
        require_fitting_loss(with_a_dict_of_outputs(knd="mse"))
