"""The reader of converted files finds what the generated one does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tensorflow.lite.python import schema_py_generated as schema

from edgefl_converters.flatbuffer.file import FlatModel
from edgefl_converters.flatbuffer.reading import read_model
from edgefl_converters.flatbuffer.schema_writers import AlignedBuffer

GOLDEN = sorted((Path(__file__).parents[2] / "golden").glob("*.tflite"))


def assert_same(one, other, where="model"):
    if isinstance(one, np.ndarray):
        np.testing.assert_array_equal(one, other, where)
        assert one.dtype == other.dtype, where
    elif isinstance(one, list):
        assert len(one) == len(other), where
        for index, (left, right) in enumerate(zip(one, other, strict=True)):
            assert_same(left, right, f"{where}[{index}]")
    elif hasattr(one, "__dict__"):
        assert type(other) is (AlignedBuffer if type(one) is schema.BufferT else type(one)), where
        assert vars(one).keys() == vars(other).keys(), where
        for name, value in vars(one).items():
            assert_same(value, vars(other)[name], f"{where}.{name}")
    else:
        assert one == other, where
        assert type(one) is type(other), where


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_a_file_is_read_as_the_generated_code_reads_it(path):
    data = path.read_bytes()
    assert_same(schema.ModelT.InitFromPackedBuf(data, 0), read_model(data))


def test_fields_that_hardly_any_table_has_are_read_too():
    operator, tensor = schema.OperatorT(), schema.TensorT()
    operator.inputs, operator.outputs, operator.intermediates, operator.customOptions = [0], [0], [3], [1, 2]
    operator.debugMetadataIndex = 7
    tensor.shape, tensor.shapeSignature, tensor.name, tensor.hasRank, tensor.isVariable = [2], [-1], b"x", True, True
    tensor.quantization, tensor.sparsity = schema.QuantizationParametersT(), schema.SparsityParametersT()
    tensor.quantization.scale, tensor.quantization.zeroPoint = [0.5], [1]
    subgraph, model = schema.SubGraphT(), schema.ModelT()
    subgraph.tensors, subgraph.operators, subgraph.inputs, subgraph.outputs = (
        [tensor, schema.TensorT()],
        [operator],
        [0],
        [0],
    )
    model.subgraphs, model.buffers, model.operatorCodes = [subgraph], [AlignedBuffer()], [schema.OperatorCodeT()]
    file = object.__new__(FlatModel)
    file._model = model
    data = file.pack()

    assert_same(schema.ModelT.InitFromPackedBuf(data, 0), read_model(data))
