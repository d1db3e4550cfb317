"""Large frozen weights are stored in fewer bytes, and nothing else is."""

from __future__ import annotations

import keras
import pytest
from keras import layers
from tensorflow.lite.python import schema_py_generated as schema

from edgefl_converters import FineTuning
from edgefl_converters.building.building import build
from edgefl_converters.flatbuffer.file import FlatModel
from edgefl_converters.settings.options import Options
from edgefl_converters.training_step.selection import fine_tuned


def mlp():
    keras.utils.set_random_seed(6)
    model = keras.Sequential([keras.Input((64,)), layers.Dense(256, "relu"), layers.Dense(256), layers.Dense(2)])
    model.compile("adam", "mse")
    return model


@pytest.mark.parametrize(
    ("storage", "dtype"), [("float16", schema.TensorType.FLOAT16), ("int8", schema.TensorType.INT8)]
)
def test_frozen_kernels_become_float32_again_when_a_model_is_loaded(storage, dtype):
    with fine_tuned(mlp(), FineTuning(last_layers=1)) as model:
        file = FlatModel(build(model, batch_size=4, options=Options(quantize_frozen=storage)).data)
    restoring = [
        (subgraph.tensors[each.inputs[0]], subgraph.tensors[each.outputs[0]])
        for subgraph in file.subgraphs
        for each in subgraph.operators
        if file.builtin(each) == schema.BuiltinOperator.DEQUANTIZE
    ]

    assert {tuple(sorted(stored.shape)) for stored, _ in restoring} == {(64, 256), (256, 256)}
    assert {stored.type for stored, _ in restoring} == {dtype}
    assert {restored.type for _, restored in restoring} == {schema.TensorType.FLOAT32}
