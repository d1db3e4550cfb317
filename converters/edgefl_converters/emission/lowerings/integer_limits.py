"""Limits of whole numbers: TensorFlow's converter makes ReLU6, which only floats have, of every limit to 0 and 6."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from edgefl_converters.emission.registry import Context, lowering

__all__: list[str] = []


@lowering("Maximum")
def integer_maximum(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor] | None:
    """The larger one, chosen, so that no pair of Maximum and Minimum is left to be taken for an activation."""
    left, right = inputs
    if not left.dtype.is_integer:
        return None
    return [tf.where(left > right, left, right)]
