"""What a branch returns twice is returned as a copy the second time."""

from __future__ import annotations

import keras
import pytest
from keras import layers
from tensorflow.lite.python import schema_py_generated as schema

from edgefl_converters.building.building import build
from edgefl_converters.flatbuffer.file import FlatModel
from edgefl_converters.flatbuffer.pass_context import PassContext
from edgefl_converters.flatbuffer.passes.repeated_outputs import separate_outputs


def mlp():
    keras.utils.set_random_seed(6)
    model = keras.Sequential([keras.Input((64,)), layers.Dense(256, "relu"), layers.Dense(256), layers.Dense(2)])
    model.compile("adam", "mse")
    return model


@pytest.mark.parametrize(
    ("dtype", "kind"),
    [
        (schema.TensorType.FLOAT32, schema.BuiltinOperator.MAXIMUM),
        (schema.TensorType.BOOL, schema.BuiltinOperator.LOGICAL_OR),
    ],
)
def test_the_second_is_a_copy(dtype, kind):
    file = FlatModel(build(mlp(), batch_size=4).data)
    branch, tensor = schema.SubGraphT(), schema.TensorT()
    tensor.type, tensor.shape = dtype, [2]
    branch.tensors, branch.operators, branch.inputs, branch.outputs = [tensor], [], [0], [0, 0]
    file.subgraphs.append(branch)

    separate_outputs(PassContext(file, "all"))

    assert branch.outputs == [0, 1]
    assert [(file.builtin(each), each.inputs, each.outputs) for each in branch.operators] == [(kind, [0, 0], [1])]


def test_what_signatures_return_stays():
    file = FlatModel(build(mlp(), batch_size=4).data)
    before = [list(each.outputs) for each in file.subgraphs]

    separate_outputs(PassContext(file, "all"))

    assert [list(each.outputs) for each in file.subgraphs] == before
