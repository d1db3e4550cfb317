"""Frozen convolutions over few positions become products; `test_one_copy` compares what they compute with Keras."""

from __future__ import annotations

import keras
import pytest
from keras import layers

from edgefl.inspecting.graph import read_graph
from edgefl.model_file import ModelFile
from edgefl_converters import FineTuning
from edgefl_converters.building.building import build
from edgefl_converters.settings.options import Options
from edgefl_converters.training_step.selection import fine_tuned

ROWS, CHANNELS = 8, 256


def convolutions(side, channels=CHANNELS, **settings):
    """How many ops of a frozen convolution of 3 x 3 are left in `infer`, with a head that is trained."""
    keras.utils.set_random_seed(1)
    settings = {"padding": "same", "activation": "relu", **settings}
    stack = [layers.Conv2D(channels, 3, **settings), layers.GlobalAveragePooling2D(), layers.Dense(3, name="head")]
    model = keras.Sequential([keras.Input((side, side, channels)), *stack])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    tuning = FineTuning(trainable="head")
    with fine_tuned(model, tuning) as tuned:
        built = build(tuned, batch_size=ROWS, options=Options(tuning))
    return read_graph(ModelFile(built.data)).count("infer").get("CONV_2D", 0)


def test_one_over_few_positions_is_a_product():
    assert convolutions(4) == 0


@pytest.mark.parametrize(
    ("side", "settings"),
    [(32, {}), (4, {"channels": 64}), (8, {"strides": 2}), (8, {"dilation_rate": 2})],
    ids=["over many positions", "of few channels", "with strides", "dilated"],
)
def test_any_other_is_left_to_the_runtimes(side, settings):
    assert convolutions(side, **settings) == 1
