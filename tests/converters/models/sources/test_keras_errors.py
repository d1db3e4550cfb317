"""What Keras failed on is known whatever words it has for it."""

from __future__ import annotations

import zipfile

import keras
import pytest
from keras import layers

from edgefl.errors import ModelError
from edgefl_converters.models.loading import load
from edgefl_converters.models.sources.keras_errors import cause, class_in_the_making, unknown_name
from edgefl_converters.models.sources.nearest_names import near_hint


def dense(**settings):
    return keras.Sequential([keras.Input((2,)), layers.Dense(2, **settings)])


def raised(call):
    with pytest.raises(Exception) as caught:  # noqa: PT011 - whatever Keras chooses
        call()
    return caught.value


@pytest.mark.parametrize(
    ("call", "name", "near"),
    [
        (lambda: dense(activation="reluu"), "reluu", "'relu'"),
        (lambda: dense(kernel_initializer="glorot_unifrom"), "glorot_unifrom", "'glorot_uniform'"),
        (lambda: dense().compile("sgdd", "mse"), "sgdd", "'SGD'"),
        (lambda: layers.Desne(2), "Desne", "'Dense'"),
        (lambda: keras.saving.deserialize_keras_object({"class_name": "Dence", "config": {}}), "Dence", "'Dense'"),
    ],
)
def test_a_name_that_keras_does_not_know_is_taken_from_the_call(call, name, near):
    error = raised(call)
    assert unknown_name(error) == name
    assert near_hint(error) == f"Did you mean {near}?"


def test_keras_may_word_its_errors_as_it_likes():
    error = raised(lambda: dense(activation="reluu"))
    assert unknown_name(type(error)("Something else.").with_traceback(error.__traceback__)) == "reluu"


@pytest.mark.parametrize(
    "call", [lambda: dense(units=3), lambda: int("x"), lambda: dense()(keras.ops.ones((1, 3))), lambda: [].missing]
)
def test_what_fails_in_another_way_has_no_unknown_name(call):
    error = raised(call)
    assert unknown_name(error) is None
    assert near_hint(error) is None


def test_the_layer_that_could_not_be_made_and_why_are_told(tmp_path):
    made, path = tmp_path / "made.keras", tmp_path / "broken.keras"
    dense(activation="relu").save(made)
    with zipfile.ZipFile(made) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name).replace(b'"units": 2', b'"units": -2'))

    error = raised(lambda: keras.saving.load_model(path))
    assert class_in_the_making(error) == "Dense"
    assert "-2" in str(cause(error))
    with pytest.raises(ModelError, match=r"Keras cannot load .*broken\.keras: Dense: .*-2"):
        load(path)


@keras.saving.register_keras_serializable("tests")
class OfAMode(layers.Layer):
    def __init__(self, mode="plain", **settings):
        super().__init__(**settings)
        try:
            self.mode = {"plain": 0}[mode]
        except KeyError:
            raise ValueError(f"There is no mode {mode}.")  # noqa: B904 - many do

    def get_config(self):
        return {**super().get_config(), "mode": "another"}


def test_what_a_layer_says_of_itself_is_told_and_not_what_it_stumbled_over():
    made = keras.saving.serialize_keras_object(OfAMode())
    error = raised(lambda: keras.saving.deserialize_keras_object(made))
    assert class_in_the_making(error) == "OfAMode"
    assert str(cause(error)) == "There is no mode another."
