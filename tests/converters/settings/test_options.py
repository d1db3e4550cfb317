"""What a file is made for, read back from it."""

from __future__ import annotations

import keras
import pytest
from keras import layers

from edgefl_converters import FineTuning
from edgefl_converters.building.building import build
from edgefl_converters.settings.options import Options, options_of
from edgefl_converters.training_step.selection import fine_tuned


def network():
    keras.utils.set_random_seed(1)
    block = keras.Sequential([keras.Input((6,)), layers.Dense(6, activation="tanh", name="head")], name="block")
    stack = [keras.Input((6,)), block, layers.BatchNormalization(name="norm"), layers.Dense(3, name="head")]
    model = keras.Sequential(stack)
    model.compile("sgd", "mse")
    return model


@pytest.mark.parametrize(
    "options",
    [
        Options(),
        Options(FineTuning(trainable="/head"), algorithms=["fedprox"]),
        Options(FineTuning(frozen="norm"), algorithms=["scaffold", "fedsgd"], target="litert-2"),
        Options(FineTuning(lora_rank=2, lora_alpha=3.0), algorithms="feddyn"),
        Options(FineTuning(frozen="norm"), micro_batch=2),
    ],
)
def test_options_are_read_back_from_the_file(options):
    with fine_tuned(network(), options.fine_tuning, own=True) as model:
        assert options_of(build(model, batch_size=4, options=options).manifest) == options
