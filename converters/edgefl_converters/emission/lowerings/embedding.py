"""Gradients of lookups: rows added up at their indices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from edgefl_converters.emission.registry import Context, lowering
from edgefl_converters.emission.traced_ops import constant, folded, static_shape


@lowering("UnsortedSegmentSum")
def unsorted_segment_sum(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor]:
    """SCATTER_ND sums duplicates on every runtime, several times faster than their own segment sums."""
    data, segments = inputs[0], inputs[1]
    shape = (int(constant(op, 2)), *static_shape(data)[len(static_shape(segments)) :])
    known = folded(op.inputs[1])
    if known is not None and (known < 0).any():
        return [_where_known(data, np.ravel(known), shape)]
    return [tf.scatter_nd(tf.expand_dims(segments, -1), data, shape)]


def _where_known(data: tf.Tensor, segments: NDArray[np.int64], shape: tuple[int, ...]) -> tf.Tensor:
    """Looks up what belongs to each segment; a negative one is that of nothing, at which SCATTER_ND stops."""
    entries: list[list[int]] = [[] for _ in range(shape[0])]
    for entry, segment in enumerate(segments):
        if segment >= 0:
            entries[segment].append(entry)
    most = max(1, max(map(len, entries)))
    table = np.asarray([each + [len(segments)] * (most - len(each)) for each in entries], np.int32)
    rows = tf.pad(tf.reshape(data, [len(segments), -1]), [[0, 1], [0, 0]])
    return tf.reshape(tf.reduce_sum(tf.gather(rows, table), axis=1), shape)
