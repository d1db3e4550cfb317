"""What a file is made for, read back from it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgefl_converters import FineTuning
from edgefl_converters.building.building import build
from edgefl_converters.settings.options import Options, options_of
from edgefl_converters.training_step.selection import fine_tuned
from keras_models import nested_head


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
    with fine_tuned(nested_head(), options.fine_tuning, own=True) as model:
        found = options_of(build(model, batch_size=4, options=options).manifest)
    # A file has the shapes of its targets, asked for or not.
    assert replace(found, target_shape=None) == options
    assert found.target_shape == {"y": (3,)}
