"""Large variables are read for each op that needs them, where a runtime then copies none."""

from __future__ import annotations

from collections import Counter

import keras
import pytest
from keras import layers

from edgefl.inspecting.graph import read_graph
from edgefl.model_file import ModelFile
from edgefl_converters.building.building import build
from edgefl_converters.settings.options import Options


def reads(target):
    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.Input((64,)), layers.Dense(96, "relu"), layers.Dense(48, "relu"), layers.Dense(4)])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    graph = read_graph(ModelFile(build(model, batch_size=4, options=Options(target=target)).data))
    operators = graph.operators[0]
    uses = Counter(tensor for operator in operators for tensor in operator.inputs)
    values = [operator.outputs[0] for operator in operators if operator.name == "READ_VARIABLE"]
    shapes = [graph.tensors[0][value].shape for value in values]
    return {shape: [uses[value] for value, own in zip(values, shapes) if own == shape] for shape in shapes}


@pytest.mark.parametrize("target", ["all", "litert-2"])
def test_each_use_of_a_large_weight_has_a_reading_of_its_own(target):
    counted = reads(target)

    assert counted[64, 96] == [1, 1]  # forward, update
    assert counted[96, 48] == [1, 1, 1]  # and back
    assert counted[48, 4] == [3]
    assert counted[96,] == [2]


def test_a_file_for_a_runtime_that_copies_at_every_reading_reads_once():
    assert all(len(uses) == 1 for uses in reads("tflite-2.14").values())
