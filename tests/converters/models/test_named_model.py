"""The names of a model, made once and passed along."""

from __future__ import annotations

import keras
from keras import layers

import edgefl
from edgefl_converters.models import named_model, naming
from edgefl_converters.models.named_model import NamedModel


def mlp():
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, name="body"), layers.Dense(2, name="head")])
    model.compile("sgd", "mse")
    return model


def test_each_variable_is_found_by_its_name_and_the_other_way_round():
    named = NamedModel(mlp())

    assert list(named.variables) == ["body/kernel", "body/bias", "head/kernel", "head/bias"]
    assert all(named.name_of(variable) == name for name, variable in named.variables.items())


class Twins(layers.Layer):
    """Two weights of one name."""

    def build(self, shape):
        self.first, self.second = (self.add_weight(shape=(), name="weight") for _ in (1, 2))

    def call(self, x):
        return x * self.first * self.second


def test_variables_of_one_name_are_told_apart():
    model = keras.Sequential([keras.Input((4,)), Twins(name="twins")])

    assert list(NamedModel(model).variables) == ["twins/weight", "twins/weight_1"]


def test_what_is_named_already_stays_so():
    named = NamedModel(mlp())
    assert NamedModel.of(named) is named
    assert NamedModel.of(named.model) is not named


def counted(monkeypatch):
    """Of which models names are made from now on."""
    of: list[keras.Model] = []

    class Counted(naming.PathNames):
        def __init__(self, model):
            of.append(model)
            super().__init__(model)

    monkeypatch.setattr(named_model, "PathNames", Counted)
    return of


def test_a_conversion_and_a_verification_name_the_model_once(monkeypatch, tmp_path):
    model, of = mlp(), counted(monkeypatch)
    tuning = edgefl.FineTuning(frozen="body")

    edgefl.convert(model, tmp_path / "m.tflite", batch_size=4, fine_tuning=tuning, local="head/bias")
    assert of.count(model) == 1

    edgefl.verify(tmp_path / "m.tflite", model)
    assert of.count(model) == 2
