"""Frozen convolutions over few positions, which would be packed, are products with their filters, in a converted file.

XNNPACK packs the filter of a CONV_2D for each signature, as it does the right side of a product; on the left of one it
is read where it lies (`one_copy`). The windows of the image are put together for it, and transposed as what is made of
them is. A step of a head on ResNet50 (64 x 64, 8 rows) takes 0.9 of the time, on VGG16 as long.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from tensorflow.lite.python import schema_py_generated as schema

from edgefl_converters.flatbuffer.file import FlatModel
from edgefl_converters.flatbuffer.in_place import is_read_in_place
from edgefl_converters.flatbuffer.object_form import append
from edgefl_converters.flatbuffer.pass_context import PassContext
from edgefl_converters.flatbuffer.passes.base import register_pass
from edgefl_converters.flatbuffer.transpositions import exchange

__all__ = ["multiply_over_few_positions"]

_Operator, _Options = schema.BuiltinOperator, schema.BuiltinOptions

_NARROW = 256
"""Channels below which transposing takes too much of the time: MobileNetV2 has 112 before its last convolution."""

_LARGER = 2
"""So many times as large as the filter windows and outputs may be together. ResNet50 gains with 2 as with 1."""

_MOST_JOINED = 5
"""As many tensors XNNPACK joins at once."""


# Its products are read in place by the pass that follows.
@register_pass("packed_convolutions", after="flat_products", runtime="ai-edge-litert")
def multiply_over_few_positions(context: PassContext) -> None:
    """Makes such convolutions of all subgraphs products."""
    file = context.file
    for subgraph in file.subgraphs:
        subgraph.operators = [
            each
            for operator in subgraph.operators
            for each in (
                _Product(file, subgraph, operator).operators if _fits(file, subgraph, operator) else [operator]
            )
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
    strides, size = (options.strideH, options.strideW), height * width * inputs
    if height * width == 1:
        taken = image[1] % strides[0] == image[2] % strides[1] == 0
    else:
        one = strides == (1, 1) == (options.dilationHFactor, options.dilationWFactor)
        taken = one and max(height, width) <= _MOST_JOINED
    return (
        taken
        and inputs == image[-1]
        and min(inputs, outputs) >= _NARROW
        and rows * (size + outputs) <= _LARGER * size * outputs
        and is_read_in_place((outputs, size), rows)
    )


class _Product:
    """The ops ``(V w^T + b)^T`` for a convolution: w are the windows of its image, one a row."""

    def __init__(self, file: FlatModel, subgraph: Any, convolution: Any) -> None:
        self._file, self._subgraph, self._tensors = file, subgraph, subgraph.tensors
        self._output = int(convolution.outputs[0])
        self.operators: list[Any] = []
        image, kernel, bias = (int(each) for each in convolution.inputs)
        outputs, height, width, inputs = _shape(subgraph, kernel)
        made = _shape(subgraph, self._output)
        rows, size = math.prod(made[:-1]), height * width * inputs
        options = convolution.builtinOptions
        if height * width == 1:
            windows = self._thinned(image, options.strideH, options.strideW)
        else:
            windows = self._windows(image, made, height, width)
        turned = self._exchanged(self._reshaped(windows, [1, rows, size]))
        stored, shift = self._constant(kernel, [1, outputs, size]), self._constant(bias, [1, outputs, 1])
        product = self._op(
            _Operator.BATCH_MATMUL,
            [stored, turned],
            [1, outputs, rows],
            _Options.BatchMatMulOptions,
            schema.BatchMatMulOptionsT(),
        )
        adding = schema.AddOptionsT()
        adding.fusedActivationFunction = options.fusedActivationFunction
        total = self._op(_Operator.ADD, [product, shift], [1, outputs, rows], _Options.AddOptions, adding)
        self._reshaped(self._exchanged(total), made)
        self.operators[-1].outputs = [self._output]

    def _thinned(self, image: int, down: int, along: int) -> int:
        """Every so many rows and columns: what lies between has an axis, or channels, of its own, and is cut off."""
        if down * along == 1:
            return image
        batch, height, width, channels = _shape(self._subgraph, image)
        split = self._reshaped(image, [batch * height // down, down, width // along, along * channels])
        return self._sliced(split, (0, 0), [batch * height // down, 1, width // along, channels])

    def _windows(self, image: int, made: Sequence[int], height: int, width: int) -> int:
        """The taps of all positions, joined along the channels."""
        batch, rows, columns, channels = _shape(self._subgraph, image)
        missing = made[1] + height - 1 - rows, made[2] + width - 1 - columns
        if any(missing):
            margins = np.array([[0, 0], *([each // 2, each - each // 2] for each in missing), [0, 0]], np.int32)
            added = self._file.constant(self._subgraph, schema.TensorType.INT32, [4, 2], margins.tobytes())
            padded = [batch, rows + missing[0], columns + missing[1], channels]
            image = self._op(_Operator.PAD, [image, added], padded, _Options.PadOptions, schema.PadOptionsT())
        size = [*made[:-1], channels]
        taps = [[self._sliced(image, (row, column), size) for column in range(width)] for row in range(height)]
        return self._joined([self._joined(each) for each in taps])

    def _joined(self, parts: Sequence[int]) -> int:
        if len(parts) == 1:
            return parts[0]
        first = _shape(self._subgraph, parts[0])
        joining = schema.ConcatenationOptionsT()
        joining.axis = 3
        shape = [*first[:-1], len(parts) * first[-1]]
        return self._op(_Operator.CONCATENATION, list(parts), shape, _Options.ConcatenationOptions, joining)

    def _sliced(self, source: int, begin: tuple[int, int], size: list[int]) -> int:
        given = [source, self._file.integers(self._subgraph, [0, *begin, 0]), self._file.integers(self._subgraph, size)]
        return self._op(_Operator.SLICE, given, size, _Options.SliceOptions, schema.SliceOptionsT())

    def _reshaped(self, source: int, shape: Sequence[int]) -> int:
        return self._op(_Operator.RESHAPE, [source, self._file.integers(self._subgraph, shape)], shape)

    def _exchanged(self, source: int) -> int:
        first, rows, columns = _shape(self._subgraph, source)
        target = self._tensor(self._output, [first, columns, rows])
        self.operators.append(exchange(self._file, self._subgraph, source, target))
        return target

    def _constant(self, like: int, shape: Sequence[int]) -> int:
        """The same constant in another shape."""
        made = self._tensor(like, shape)
        self._tensors[made].buffer = self._tensors[like].buffer
        return made

    def _tensor(self, like: int, shape: Sequence[int]) -> int:
        made = schema.TensorT()
        made.type, made.shape, made.name, made.buffer = (
            self._tensors[like].type,
            list(shape),
            self._tensors[like].name,
            0,
        )
        return append(self._tensors, made)

    def _op(self, kind: int, given: list[int], shape: Sequence[int], options_type: int = 0, options: Any = None) -> int:
        operator, made = schema.OperatorT(), self._tensor(self._output, shape)
        operator.opcodeIndex, operator.inputs, operator.outputs = self._file.operator_code(kind), given, [made]
        operator.builtinOptionsType, operator.builtinOptions = options_type, options
        self.operators.append(operator)
        return made
