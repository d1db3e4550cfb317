"""Masks that do not depend on data, as of causal attention: products and sums, which delegates take, for a choice.

A product with 0 is 0 only for finite numbers. So this is done around a softmax alone, which has no use for others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from edgefl_converters.emission.registry import Context, lowering
from edgefl_converters.emission.traced_ops import folded


@lowering("SelectV2")
def select(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor] | None:
    """Emits what goes into a softmax, or back out of it, where the mask is set; a number elsewhere."""
    if inputs[1].dtype != tf.float32 or inputs[1].shape != op.outputs[0].shape or not _is_around_a_softmax(op):
        return None
    mask, number = folded(op.inputs[0]), folded(op.inputs[2])
    if mask is None or number is None or number.size != 1 or not np.isfinite(number).all():
        return None
    kept = _smallest(mask).astype(np.float32)
    chosen = inputs[1] * kept
    return [chosen + (1.0 - kept) * number.astype(np.float32).ravel()[0] if number.any() else chosen]


def _is_around_a_softmax(op: Any) -> bool:
    source, readers = op.inputs[1].op, op.outputs[0].consumers()
    return {each.type for each in readers} == {"Softmax"} or (
        source.type == "Mul" and any(each.op.type == "Softmax" for each in source.inputs)
    )


def _smallest(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The mask with one place along every axis along which it repeats."""
    for axis, size in enumerate(mask.shape):
        first = mask.take([0], axis)
        if size > 1 and (mask == first).all():
            mask = first
    return mask
