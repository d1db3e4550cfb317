"""Frozen convolutions of one tap over few positions are products with their filters, in a converted file.

XNNPACK packs the filter of a CONV_2D for each signature, as it does the right side of a product; on the left of one it
is read where it lies (`one_copy`). The filter must be larger than the image and what is made of it: those are
transposed.
"""

from __future__ import annotations

import math
from typing import Any

from tensorflow.lite.python import schema_py_generated as schema

from edgefl_converters.flatbuffer.file import FlatModel
from edgefl_converters.flatbuffer.in_place import is_read_in_place
from edgefl_converters.flatbuffer.object_form import append
from edgefl_converters.flatbuffer.pass_context import PassContext
from edgefl_converters.flatbuffer.passes.base import register_pass
from edgefl_converters.flatbuffer.transpositions import exchange

__all__ = ["multiply_point_convolutions"]

_Operator, _Options = schema.BuiltinOperator, schema.BuiltinOptions

_NARROW = 256
"""Channels below which transposing takes too much of the time: MobileNetV2 has 112 before its last convolution."""


# Its products are read in place by the pass that follows.
@register_pass("point_convolutions", after="flat_products", runtime="ai-edge-litert")
def multiply_point_convolutions(context: PassContext) -> None:
    """Makes such convolutions of all subgraphs products."""
    file = context.file
    for subgraph in file.subgraphs:
        subgraph.operators = [
            each
            for operator in subgraph.operators
            for each in (_product(file, subgraph, operator) if _fits(file, subgraph, operator) else [operator])
        ]


def _shape(subgraph: Any, tensor: int) -> list[int]:
    return list(map(int, subgraph.tensors[int(tensor)].shape))


def _is_constant(file: FlatModel, subgraph: Any, tensor: int) -> bool:
    described = subgraph.tensors[int(tensor)]
    data = file.model.buffers[described.buffer].data
    return described.type == schema.TensorType.FLOAT32 and data is not None and len(data) > 0


def _fits(file: FlatModel, subgraph: Any, operator: Any) -> bool:
    if file.builtin(operator) != _Operator.CONV_2D or len(operator.inputs) < 3 or int(operator.inputs[2]) < 0:
        return False
    if not all(_is_constant(file, subgraph, each) for each in operator.inputs[1:]):
        return False
    image, (outputs, height, width, inputs) = (_shape(subgraph, each) for each in operator.inputs[:2])
    options, rows = operator.builtinOptions, math.prod(_shape(subgraph, operator.outputs[0])[:-1])
    return (
        (height, width) == (1, 1)
        and image[1] % options.strideH == image[2] % options.strideW == 0
        and inputs == image[-1]
        and min(inputs, outputs) >= _NARROW
        and rows * (inputs + outputs) <= inputs * outputs
        and is_read_in_place((outputs, inputs), rows)
    )


def _product(file: FlatModel, subgraph: Any, convolution: Any) -> list[Any]:
    """The ops ``(V x^T + b)^T`` for a convolution."""
    image, kernel, bias = (int(each) for each in convolution.inputs)
    (outputs, _, _, inputs), whole = _shape(subgraph, kernel), _shape(subgraph, image)
    output, options = int(convolution.outputs[0]), convolution.builtinOptions
    rows, tensors = math.prod(_shape(subgraph, output)[:-1]), subgraph.tensors

    def tensor(like: int, shape: list[int], *, constant: bool = False) -> int:
        made = schema.TensorT()
        made.type, made.shape, made.name = tensors[like].type, shape, tensors[like].name
        made.buffer = tensors[like].buffer if constant else 0
        return append(tensors, made)

    def op(kind: int, given: list[int], makes: int, options_type: int = 0, options: Any = None) -> Any:
        operator = schema.OperatorT()
        operator.opcodeIndex, operator.inputs, operator.outputs = file.operator_code(kind), given, [makes]
        operator.builtinOptionsType, operator.builtinOptions = options_type, options
        return operator

    def reshape(source: int, shape: list[int], makes: int | None = None) -> Any:
        return op(
            _Operator.RESHAPE,
            [source, file.integers(subgraph, shape)],
            tensor(output, shape) if makes is None else makes,
        )

    before = []
    if options.strideH * options.strideW > 1:
        # What lies between the positions has an axis of its own, or channels of its own, and is cut off there.
        positions = [whole[0] * whole[1] // options.strideH, options.strideH, whole[2] // options.strideW]
        split = reshape(image, [*positions, options.strideW * inputs])
        sizes = [positions[0], 1, positions[2], inputs]
        image = tensor(output, sizes)
        given = [split.outputs[0], file.integers(subgraph, [0] * 4), file.integers(subgraph, sizes)]
        before = [split, op(_Operator.SLICE, given, image, _Options.SliceOptions, schema.SliceOptionsT())]
    flat, turned = tensor(output, [1, rows, inputs]), tensor(output, [1, inputs, rows])
    product, total = (tensor(output, [1, outputs, rows]) for _ in range(2))
    back = tensor(output, [1, rows, outputs])
    stored, shift = tensor(kernel, [1, outputs, inputs], constant=True), tensor(bias, [1, outputs, 1], constant=True)
    adding = schema.AddOptionsT()
    adding.fusedActivationFunction = options.fusedActivationFunction
    return [
        *before,
        reshape(image, [1, rows, inputs], flat),
        exchange(file, subgraph, flat, turned),
        op(
            _Operator.BATCH_MATMUL, [stored, turned], product, _Options.BatchMatMulOptions, schema.BatchMatMulOptionsT()
        ),
        op(_Operator.ADD, [product, shift], total, _Options.AddOptions, adding),
        exchange(file, subgraph, total, back),
        reshape(back, _shape(subgraph, output), output),
    ]
