"""Products of matrices of whole numbers, as layers with quantized weights make them: no builtin op is one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from edgefl_converters.emission.registry import Context, lowering
from edgefl_converters.emission.traced_ops import attribute

__all__: list[str] = []


@lowering("BatchMatMulV3")
def integer_product(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor] | None:
    """The product of the same numbers as floats: exact for sums below 2^24, those of 1,040 products of two int8."""
    wanted = op.outputs[0].dtype
    if not wanted.is_integer:
        return None
    left, right = (tf.cast(each, tf.float32) for each in inputs)
    adjoint = {name: bool(attribute(op, name)) for name in ("adj_x", "adj_y")}
    return [tf.cast(tf.round(tf.raw_ops.BatchMatMulV2(x=left, y=right, **adjoint)), wanted)]
