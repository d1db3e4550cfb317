"""Constants of one repeated number are computed where they are assigned."""

from __future__ import annotations

import keras
import pytest
from keras import layers

from edgefl.model_file import ModelFile
from edgefl_converters.building.building import build
from edgefl_converters.settings.options import Options


def mlp():
    keras.utils.set_random_seed(6)
    model = keras.Sequential([keras.Input((64,)), layers.Dense(256, "relu"), layers.Dense(256), layers.Dense(2)])
    model.compile("adam", "mse")
    return model


@pytest.mark.slow
def test_without_it_slots_that_start_at_zero_are_stored():
    built = build(mlp(), batch_size=4)
    plain = build(mlp(), batch_size=4, options=Options(without_passes="repeated_constants"))

    assert len(built.data) < 4 * built.manifest.layout.size * 1.15 + 100_000
    assert len(plain.data) > len(built.data) + 4 * 64 * 256


def test_a_parameter_that_starts_at_zero_is_stored_all_the_same():
    built = build(mlp(), batch_size=4)
    biases = [each for each in built.manifest.parameters if each.name.endswith("bias")]

    assert all(not ModelFile(built.data).initial_value(each).any() for each in biases)
