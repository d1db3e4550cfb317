"""Operations of TensorFlow in terms of those of Keras 3, each with the arguments that TensorFlow gives it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np
from keras import ops

from edgefl_converters.models.sources.keras_2.tensorflow_operation import index_of

__all__ = ["IN_KERAS", "TENSORS", "is_tensor"]

TENSORS = ("x", "y", "b", "indices", "clip_value_min", "clip_value_max")
"""Arguments besides the first that are tensors for Keras too."""
_SAME_NAME = (
    "abs",
    "sqrt",
    "rsqrt",
    "square",
    "exp",
    "expm1",
    "log",
    "log1p",
    "sin",
    "cos",
    "tan",
    "asin",
    "acos",
    "atan",
    "sinh",
    "cosh",
    "tanh",
    "floor",
    "ceil",
    "round",
    "sign",
    "sigmoid",
    "softplus",
    "softsign",
    "relu",
    "relu6",
    "selu",
    "erf",
    "logical_not",
    "zeros_like",
    "ones_like",
    "stop_gradient",
    "log_sigmoid",
)


def is_tensor(value: Any) -> bool:
    """Tells whether a value is a tensor of a model that is being built."""
    return isinstance(value, keras.KerasTensor)


def _array(value: Any) -> Any:
    """A constant with a shape; lists of numbers have none for Keras."""
    if not isinstance(value, (list, tuple)) or any(map(is_tensor, keras.tree.flatten(value))):
        return value
    array = np.array(value)
    return array.astype({"f": "float32", "i": "int32"}.get(array.dtype.kind, array.dtype))


def _one(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x: function(x)


def _two(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x, y: function(_array(x), _array(y))


def _over(function: Callable[..., Any]) -> Callable[..., Any]:
    def reduced(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
        return function(x, axis=tuple(axis) if isinstance(axis, list) else axis, keepdims=keepdims)

    return reduced


def _same_type(x: Any, dtype: Any = None) -> Any:
    return x if dtype is None else ops.cast(x, _dtype(dtype))


def _dtype(value: Any) -> str:
    return str(getattr(value, "name", value))


def _list(value: Iterable[Any] | Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _l2_normalize(x: Any, axis: Any = None, epsilon: float = 1e-12) -> Any:
    squares = ops.sum(ops.square(x), axis=tuple(_list(axis)) if axis is not None else None, keepdims=True)
    return ops.multiply(x, ops.rsqrt(ops.maximum(squares, epsilon)))


def _norm(tensor: Any, ord: Any = "euclidean", axis: Any = None, keepdims: bool = False) -> Any:
    if ord not in ("euclidean", 2, 2.0) or (isinstance(axis, (list, tuple)) and len(axis) > 1 and ord != "euclidean"):
        return NotImplemented
    return ops.sqrt(
        ops.sum(ops.square(tensor), axis=tuple(_list(axis)) if axis is not None else None, keepdims=keepdims)
    )


def _matmul(a: Any, b: Any, transpose_a: bool = False, transpose_b: bool = False) -> Any:
    left, right = _array(a), _array(b)
    return ops.matmul(
        ops.swapaxes(left, -1, -2) if transpose_a else left, ops.swapaxes(right, -1, -2) if transpose_b else right
    )


def _split(value: Any, num_or_size_splits: Any, axis: int = 0) -> Any:
    if isinstance(num_or_size_splits, int):
        return ops.split(value, num_or_size_splits, axis=axis)
    sizes = list(num_or_size_splits)
    return ops.split(value, np.cumsum(sizes)[:-1].tolist(), axis=axis) if -1 not in sizes else NotImplemented


def _pad(tensor: Any, paddings: Any, mode: str = "CONSTANT", constant_values: Any = 0) -> Any:
    pairs = [tuple(each) for each in paddings]
    return ops.pad(
        tensor, pairs, mode=mode.lower(), **({"constant_values": constant_values} if mode.lower() == "constant" else {})
    )


def _take(params: Any, indices: Any, axis: int = 0, batch_dims: int = 0) -> Any:
    return ops.take(_array(params), _array(indices), axis=axis) if batch_dims == 0 else NotImplemented


def _bias_add(value: Any, bias: Any, data_format: Any = None) -> Any:
    first = data_format is not None and data_format.startswith(("NC", "channels_first"))
    return NotImplemented if first else ops.add(value, _array(bias))


def _batch_flatten(x: Any) -> Any:
    return ops.reshape(x, (-1, math.prod(x.shape[1:])))


def _getitem(x: Any, slice_spec: Any) -> Any:
    if any(map(is_tensor, keras.tree.flatten(slice_spec))):
        return NotImplemented
    return x[index_of(slice_spec)]


IN_KERAS: dict[str, Callable[..., Any]] = {
    **{
        name: _one(getattr(ops, same))
        for name, same in {
            **{name: name for name in _SAME_NAME},
            "asin": "arcsin",
            "acos": "arccos",
            "atan": "arctan",
            "negative": "negative",
            "reciprocal": "reciprocal",
            "silu": "silu",
            "swish": "silu",
            "is_nan": "isnan",
            "is_inf": "isinf",
            "is_finite": "isfinite",
        }.items()
    },
    **{
        name: _two(getattr(ops, same))
        for name, same in {
            "add": "add",
            "subtract": "subtract",
            "multiply": "multiply",
            "truediv": "true_divide",
            "div": "true_divide",
            "divide": "true_divide",
            "realdiv": "true_divide",
            "floordiv": "floor_divide",
            "floor_div": "floor_divide",
            "floormod": "mod",
            "mod": "mod",
            "pow": "power",
            "maximum": "maximum",
            "minimum": "minimum",
            "greater": "greater",
            "greater_equal": "greater_equal",
            "less": "less",
            "less_equal": "less_equal",
            "equal": "equal",
            "eq": "equal",
            "not_equal": "not_equal",
            "ne": "not_equal",
            "logical_and": "logical_and",
            "logical_or": "logical_or",
            "logical_xor": "logical_xor",
            "divide_no_nan": "divide_no_nan",
            "atan2": "arctan2",
        }.items()
    },
    **{
        name: _over(getattr(ops, same))
        for name, same in {
            "reduce_mean": "mean",
            "reduce_sum": "sum",
            "reduce_max": "max",
            "reduce_min": "min",
            "reduce_prod": "prod",
            "reduce_any": "any",
            "reduce_all": "all",
            "reduce_std": "std",
            "reduce_variance": "var",
            "reduce_logsumexp": "logsumexp",
        }.items()
    },
    "getitem": _getitem,
    "squared_difference": lambda x, y: ops.square(ops.subtract(_array(x), _array(y))),
    "identity": _same_type,
    "convert_to_tensor": _same_type,
    "cast": lambda x, dtype: ops.cast(x, _dtype(dtype)),
    "concat": lambda values, axis: ops.concatenate([_array(each) for each in _list(values)], axis=axis),
    "stack": lambda values, axis=0: ops.stack([_array(each) for each in _list(values)], axis=axis),
    "unstack": lambda value, num=None, axis=0: ops.unstack(value, num, axis=axis),
    "split": _split,
    "reshape": lambda tensor, shape: ops.reshape(tensor, tuple(_list(shape))),
    "transpose": lambda a, perm=None, conjugate=False: ops.transpose(a, perm if perm is None else tuple(perm)),
    "expand_dims": lambda input, axis: ops.expand_dims(input, axis),
    "squeeze": lambda input, axis=None: ops.squeeze(input, tuple(axis) if isinstance(axis, list) else axis),
    "tile": lambda input, multiples: ops.tile(_array(input), tuple(multiples)),
    "repeat": lambda input, repeats, axis=None: ops.repeat(input, repeats, axis=axis),
    "reverse": lambda tensor, axis: ops.flip(tensor, axis=tuple(_list(axis))),
    "roll": lambda input, shift, axis: ops.roll(input, shift, axis=axis),
    "pad": _pad,
    "gather": _take,
    "where": lambda condition, x, y: ops.where(condition, _array(x), _array(y)),
    "clip_by_value": lambda t, clip_value_min, clip_value_max: ops.clip(t, clip_value_min, clip_value_max),
    "one_hot": lambda indices, depth, axis=-1: ops.one_hot(indices, depth, axis=axis),
    "top_k": lambda input, k=1, sorted=True: ops.top_k(input, k, sorted=sorted),
    "matmul": _matmul,
    "norm": _norm,
    "l2_normalize": _l2_normalize,
    "bias_add": _bias_add,
    "batch_flatten": _batch_flatten,
    "softmax": lambda logits, axis=-1: ops.softmax(logits, axis=axis),
    "log_softmax": lambda logits, axis=-1: ops.log_softmax(logits, axis=axis),
    "elu": lambda features: ops.elu(features),
    "leaky_relu": lambda features, alpha=0.2: ops.leaky_relu(features, negative_slope=alpha),
    "gelu": lambda features, approximate=False: ops.gelu(features, approximate=approximate),
}
"""By the name without its module; each returns NotImplemented where Keras cannot do it with these arguments."""
