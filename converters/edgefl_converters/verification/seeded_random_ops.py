"""TensorFlow's random numbers replaced by those that a model file computes from its seed.

Without this, a model with dropout could not be compared: TensorFlow would draw other masks than the file.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import tensorflow as tf
from tensorflow.python.framework import tensor_util
from tensorflow.python.ops import gen_random_ops, gen_stateless_random_ops_v2

from edgefl_converters.emission.registry import LOWERINGS
from edgefl_converters.emission.traced_ops import static_shape

__all__ = ["hashed_random_numbers"]

_REPLACED = (
    (gen_stateless_random_ops_v2, "stateless_random_uniform_v2", "StatelessRandomUniformV2"),
    (gen_stateless_random_ops_v2, "stateless_random_normal_v2", "StatelessRandomNormalV2"),
    (gen_stateless_random_ops_v2, "stateless_random_uniform_int_v2", "StatelessRandomUniformIntV2"),
    (gen_random_ops, "random_uniform", "RandomUniform"),
    (gen_random_ops, "random_standard_normal", "RandomStandardNormal"),
    (gen_random_ops, "random_uniform_int", "RandomUniformInt"),
)


@contextlib.contextmanager
def hashed_random_numbers(seed: tf.Tensor, batch_size: int) -> Iterator[None]:
    """While a step is traced, lets its random ops compute what a model file computes.

    Args:
        seed: shape ``[1]``, int32.
        batch_size: rows of the file's batches. A step on fewer rows gets the numbers of the first rows.
    """
    context = _Context(seed)
    originals = [(module, name, getattr(module, name)) for module, name, _ in _REPLACED]
    for module, name, op_type in _REPLACED:
        setattr(module, name, _replacement(op_type, context, batch_size))
    try:
        yield
    finally:
        for module, name, original in originals:
            setattr(module, name, original)


class _Context:
    """Answers what the lowerings of random ops ask for: they number a graph's ops as they were traced."""

    def __init__(self, seed: tf.Tensor) -> None:
        self.seed = seed
        self.untiled: dict[str, tf.Tensor] = {}
        self.factors: dict[str, tuple[tf.Tensor, tf.Tensor]] = {}
        self._streams = 0

    def next_stream(self) -> int:
        self._streams += 1
        return self._streams

    def drawn(self, op: Any) -> tuple[Sequence[int], int]:
        return static_shape(op.outputs[0]), 0

    def shared(self, key: Any, make: Callable[[], tf.Tensor]) -> tf.Tensor:
        return make()


def _type(limits: list[Any]) -> tf.DType:
    return tf.convert_to_tensor(limits[0]).dtype


def _replacement(op_type: str, context: _Context, batch_size: int) -> Callable[..., tf.Tensor]:
    whole = op_type.endswith(("Int", "IntV2"))

    def draw(shape: Any, *args: Any, dtype: Any = tf.float32, **kwargs: Any) -> tf.Tensor:
        known = tensor_util.constant_value_as_shape(tf.convert_to_tensor(shape, tf.int32)).as_list()
        full = tf.TensorShape([batch_size if size is None else size for size in known])
        limits = [kwargs[name] for name in ("minval", "maxval") if name in kwargs] or list(args)[-2:]
        op = SimpleNamespace(
            outputs=[SimpleNamespace(dtype=_type(limits) if whole else tf.float32, shape=full, name=op_type)]
        )
        lower: Callable[..., Any] = LOWERINGS[op_type]
        (numbers,) = lower(op, limits if whole else [], context)
        if known and known[0] is None:
            numbers = numbers[: shape[0]]
        return numbers if whole else tf.cast(numbers, dtype)

    return draw
