"""Gradients of lookups: rows added up at their indices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from edgefl_converters.emission.registry import Context, lowering
from edgefl_converters.emission.traced_ops import static_shape


@lowering("UnsortedSegmentSum")
def unsorted_segment_sum(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor]:
    """SCATTER_ND sums duplicates on every runtime, several times faster than their own segment sums."""
    data, segments = inputs[0], inputs[1]
    return [tf.scatter_nd(tf.expand_dims(segments, -1), data, static_shape(op.outputs[0]))]
