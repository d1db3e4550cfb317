"""Complex numbers as pairs of tensors: neither runtime can do more with them than take their absolute values."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from edgefl.errors import UnsupportedModelError
from edgefl_converters.emission.lowerings.fourier import fourier, half_fourier_back
from edgefl_converters.emission.registry import Emitter, lowering_where
from edgefl_converters.emission.traced_ops import constant, folded, static_shape
from edgefl_converters.emission.walk_values import ComplexValue

_Pair = tuple[tf.Tensor, tf.Tensor]

_ON_EACH_PART = frozenset(
    {
        *("AddN", "BatchToSpaceND", "BroadcastTo", "ConcatV2", "Cumsum", "ExpandDims", "Fill", "GatherNd", "GatherV2"),
        *("Mean", "MirrorPad", "Neg", "Pack", "Pad", "Reshape", "ReverseV2", "Roll", "ScatterNd", "SelectV2", "Slice"),
        *("Snapshot", "SpaceToBatchND", "Split", "SplitV", "Squeeze", "StopGradient", "StridedSlice"),
        *("StridedSliceGrad", "Sum", "Tile", "Transpose", "Unpack", "UnsortedSegmentSum", "ZerosLike"),
    }
)
"""Linear ops that take real parts to a real part: they are emitted for each of the two."""


_CALLS = ("PartitionedCall", "StatefulPartitionedCall")


def _is_complex(op: Any) -> bool:
    return op.type not in _CALLS and any(each.dtype.is_complex for each in (*op.inputs, *op.outputs))


@lowering_where(_is_complex)
def on_parts(op: Any, inputs: Sequence[Any], emitter: Emitter) -> Sequence[Any]:
    """Computes with real and imaginary parts."""
    if op.type in _ON_EACH_PART:
        parts = [
            _real_op(op, [part(each) if isinstance(each, ComplexValue) else each for each in inputs], emitter)
            for part in (operator.attrgetter("real"), operator.attrgetter("imag"))
        ]
        return [ComplexValue(real, imag) for real, imag in zip(*parts, strict=True)]
    if op.type in _FOURIER:
        return [_FOURIER[op.type](op, inputs)]
    if op.type not in _ON_PAIRS:
        raise UnsupportedModelError(
            f"{op.type} of complex numbers has no form in real ones here.",
            hint="Take the parts, the absolute value or the angle before it.",
        )
    result = _ON_PAIRS[op.type](op, *map(_parts, inputs))
    return [ComplexValue(*result) if isinstance(result, tuple) else result]


def _parts(value: Any) -> Any:
    return (value.real, value.imag) if isinstance(value, ComplexValue) else value


def _real_op(op: Any, inputs: Sequence[tf.Tensor], emitter: Emitter) -> Sequence[tf.Tensor]:
    """The same op with real numbers, traced for itself and emitted."""
    graph, bound = tf.__internal__.FuncGraph(op.type), {}
    with graph.as_default(), tf.name_scope(f"{op.name}/"):
        given = []
        for own, new in zip(op.inputs, inputs):
            fixed = folded(own) if own.dtype.is_integer else None
            placed = tf.compat.v1.placeholder(new.dtype, own.shape) if fixed is None else tf.constant(fixed)
            if fixed is None:
                bound[placed.name] = new
            given.append(placed)
        attributes = {name: each for name, each in op.node_def.attr.items() if not name.startswith("_")}
        for name, each in attributes.items():
            if tf.as_dtype(each.type or tf.float32).is_complex:
                attributes[name] = tf.compat.v1.AttrValue(type=_real(tf.as_dtype(each.type)).as_datatype_enum)
        types = [_real(each.dtype) for each in op.outputs]
        made = graph._create_op_internal(op.type, given, types, attrs=attributes, name="part")
    return emitter.emit(graph, bound, made.outputs)


def _real(dtype: tf.DType) -> tf.DType:
    return {tf.complex64: tf.float32, tf.complex128: tf.float64}.get(dtype, dtype)


def _constant(op: Any) -> _Pair:
    value = tf.make_ndarray(op.get_attr("value"))
    return tf.constant(value.real), tf.constant(value.imag)


def _product(op: Any, left: _Pair, right: _Pair) -> _Pair:
    (a, b), (c, d) = left, right
    return a * c - b * d, a * d + b * c


def _quotient(op: Any, left: _Pair, right: _Pair) -> _Pair:
    (a, b), (c, d) = left, right
    size = c * c + d * d
    return (a * c + b * d) / size, (b * c - a * d) / size


def _quotient_without_nan(op: Any, left: _Pair, right: _Pair) -> _Pair:
    (a, b), (c, d) = left, right
    size = c * c + d * d
    return tf.math.divide_no_nan(a * c + b * d, size), tf.math.divide_no_nan(b * c - a * d, size)


def _matrix_product(op: Any, left: _Pair, right: _Pair) -> _Pair:
    names = ("transpose_a", "transpose_b") if op.type == "MatMul" else ("adj_x", "adj_y")
    flips = [op.get_attr(name) for name in names]
    conjugated = [flip and name.startswith("adj") for name, flip in zip(names, flips)]
    (a, b), (c, d) = left, right
    b, d = (-b if conjugated[0] else b), (-d if conjugated[1] else d)

    def times(first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
        return tf.matmul(first, second, transpose_a=flips[0], transpose_b=flips[1])

    return times(a, c) - times(b, d), times(a, d) + times(b, c)


def _cast(op: Any, value: Any) -> Any:
    target = _real(op.outputs[0].dtype)
    if not op.outputs[0].dtype.is_complex:
        return tf.cast(value[0], target)
    if isinstance(value, tuple):
        return tf.cast(value[0], target), tf.cast(value[1], target)
    real = tf.cast(value, target)
    return real, tf.zeros_like(real)


def _absolute(op: Any, value: _Pair) -> tf.Tensor:
    return tf.sqrt(value[0] * value[0] + value[1] * value[1])


def _conjugate(value: _Pair) -> _Pair:
    return value[0], -value[1]


def _negative(value: _Pair) -> _Pair:
    return -value[0], -value[1]


def _sign(op: Any, value: _Pair) -> _Pair:
    size = _absolute(op, value)
    return tf.math.divide_no_nan(value[0], size), tf.math.divide_no_nan(value[1], size)


def _exponential(op: Any, value: _Pair) -> _Pair:
    size = tf.exp(value[0])
    return size * tf.cos(value[1]), size * tf.sin(value[1])


def _angle(op: Any, value: _Pair) -> tf.Tensor:
    return tf.math.atan2(value[1], value[0])


def _conjugate_transpose(op: Any, value: _Pair, order: Any) -> _Pair:
    order = constant(op, 1)
    return tf.transpose(value[0], order), -tf.transpose(value[1], order)


_ON_PAIRS: dict[str, Callable[..., Any]] = {
    "Abs": _absolute,
    "Add": lambda op, left, right: (left[0] + right[0], left[1] + right[1]),
    "AddV2": lambda op, left, right: (left[0] + right[0], left[1] + right[1]),
    "Angle": _angle,
    "BatchMatMulV2": _matrix_product,
    "Cast": _cast,
    "Complex": lambda op, real, imag: (tf.broadcast_to(real, _out(op)), tf.broadcast_to(imag, _out(op))),
    "ComplexAbs": _absolute,
    "Conj": lambda op, value: _conjugate(value),
    "ConjugateTranspose": _conjugate_transpose,
    "Const": _constant,
    "DivNoNan": _quotient_without_nan,
    "Exp": _exponential,
    "Imag": lambda op, value: value[1],
    "MatMul": _matrix_product,
    "Mul": _product,
    "MulNoNan": _product,
    "Real": lambda op, value: value[0],
    "RealDiv": _quotient,
    "Reciprocal": lambda op, value: _quotient(op, (tf.ones_like(value[0]), tf.zeros_like(value[0])), value),
    "ReciprocalGrad": lambda op, value, given: _negative(_product(op, given, _product(op, *[_conjugate(value)] * 2))),
    "Sign": _sign,
    "Square": lambda op, value: _product(op, value, value),
    "Sub": lambda op, left, right: (left[0] - right[0], left[1] - right[1]),
}


def _out(op: Any) -> tuple[int, ...]:
    return static_shape(op.outputs[0])


def _lengths(op: Any) -> list[int]:
    return [int(length) for length in constant(op, 1)]


def _forward(op: Any, inputs: Sequence[Any]) -> ComplexValue:
    axes = _axes(op)
    real, imag = inputs[0].real, inputs[0].imag
    for axis in axes:
        real, imag = fourier(real, imag, axis)
    return ComplexValue(real, imag)


def _backward(op: Any, inputs: Sequence[Any]) -> ComplexValue:
    real, imag = inputs[0].real, inputs[0].imag
    for axis in _axes(op):
        imag, real = fourier(imag, real, axis)  # exchanged parts turn the other way round
        real, imag = real / static_shape(real)[axis], imag / static_shape(real)[axis]
    return ComplexValue(real, imag)


def _axes(op: Any) -> list[int]:
    count = int(op.type.rstrip("D")[-1]) if op.type.endswith("D") else 1
    return list(range(-1, -1 - count, -1))


def _of_real(op: Any, inputs: Sequence[Any]) -> ComplexValue:
    lengths, axes = _lengths(op), _axes(op)
    real = _fitted(inputs[0], dict(zip(axes, reversed(lengths))))
    real, imag = fourier(real, None, -1, outputs=lengths[-1] // 2 + 1)
    for axis in axes[1:]:
        real, imag = fourier(real, imag, axis)
    return ComplexValue(real, imag)


def _to_real(op: Any, inputs: Sequence[Any]) -> tf.Tensor:
    lengths, axes = _lengths(op), _axes(op)
    wanted = dict(zip(axes, reversed(lengths))) | {-1: lengths[-1] // 2 + 1}
    real, imag = _fitted(inputs[0].real, wanted), _fitted(inputs[0].imag, wanted)
    for axis in axes[1:]:
        imag, real = fourier(imag, real, axis)
        real, imag = real / lengths[axis], imag / lengths[axis]
    return half_fourier_back(real, imag, lengths[-1])


def _fitted(tensor: tf.Tensor, sizes: dict[int, int]) -> tf.Tensor:
    """Cuts, or fills up with zeros, at the end of axes."""
    shape = list(static_shape(tensor))
    kept = list(shape)
    for axis, size in sizes.items():
        kept[axis] = min(size, shape[axis])
    if kept != shape:
        tensor = tf.slice(tensor, [0] * len(shape), kept)
    missing = [[0, 0] for _ in shape]
    for axis, size in sizes.items():
        missing[axis][1] = size - kept[axis]
    return tf.pad(tensor, missing) if any(pair[1] for pair in missing) else tensor


_FOURIER: dict[str, Callable[..., Any]] = {
    **{f"FFT{d}": _forward for d in ("", "2D", "3D")},
    **{f"IFFT{d}": _backward for d in ("", "2D", "3D")},
    **{f"RFFT{d}": _of_real for d in ("", "2D", "3D")},
    **{f"IRFFT{d}": _to_real for d in ("", "2D", "3D")},
}
