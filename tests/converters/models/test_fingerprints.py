"""A fingerprint tells models apart, and does not tell one from itself that was built once more."""

from __future__ import annotations

import keras
from keras import layers

from edgefl_converters import fingerprint


def small(units=3, rate=0.1, loss="mse", seed=1):
    keras.utils.set_random_seed(seed)
    model = keras.Sequential([keras.Input((4,)), layers.Dense(units, "tanh"), layers.Dense(1)])
    model.compile(keras.optimizers.SGD(rate), loss)
    return model


def test_a_model_that_is_built_again_under_other_names_has_the_same_fingerprint():
    one, other = small(), small()
    assert one.name != other.name
    assert fingerprint(one) == fingerprint(other)


def test_other_layers_weights_losses_and_optimizers_give_other_fingerprints():
    models = [small(), small(units=4), small(rate=0.2), small(loss="mae"), small(seed=2)]
    assert len({fingerprint(model) for model in models}) == len(models)


class Undescribed(keras.Model):
    """A model that does not say how it was made."""

    def __init__(self, around):
        super().__init__()
        self.around = around

    def call(self, inputs):
        return self.around(inputs)

    def get_config(self):
        raise NotImplementedError


def test_of_a_model_that_cannot_be_described_no_two_fingerprints_are_the_same():
    model = Undescribed(small())
    model.compile("sgd", "mse")
    model(keras.ops.zeros((1, 4)))
    assert fingerprint(model) != fingerprint(model)
