"""The order of large ops is written into the file."""

from __future__ import annotations

import keras
import pytest
from keras import layers

from edgefl_converters.building.building import build
from edgefl_converters.flatbuffer.file import FlatModel
from edgefl_converters.flatbuffer.passes.control_dependencies import METADATA_NAME, serialized
from edgefl_converters.settings.options import Options


def mlp():
    keras.utils.set_random_seed(6)
    model = keras.Sequential([keras.Input((64,)), layers.Dense(256, "relu"), layers.Dense(256), layers.Dense(2)])
    model.compile("adam", "mse")
    return model


@pytest.mark.slow
def test_a_file_holds_them_unless_they_are_left_out():
    def names(*without):
        built = build(mlp(), batch_size=4, options=Options(without_passes=without))
        return [each.name.decode() for each in FlatModel(built.data).model.metadata]

    assert METADATA_NAME in names()
    assert METADATA_NAME not in names("control_dependencies")


def test_places_are_zigzag_varints_behind_version_and_counts():
    assert serialized([[(0, 1), (2, 100)], []]) == bytes([1, 2, 2, 0, 2, 4, 200, 1, 0])
