"""Lookups of what is frozen, and gradients of lookups: rows added up at their indices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from edgefl_converters.emission.registry import Context, lowering, lowering_where
from edgefl_converters.emission.traced_ops import attribute, constant, folded, static_shape


def _looks_up_the_same(op: Any) -> bool:
    """Tells whether an op looks up rows of a table of floats at known indices, the same along their first axis."""
    if op.type != "GatherV2" or op.outputs[0].dtype != tf.float32 or int(attribute(op, "batch_dims")):
        return False
    indices, axis = folded(op.inputs[1]), folded(op.inputs[2])
    if indices is None or axis is None or int(axis) or indices.ndim < 2 or len(indices) < 2:
        return False
    return bool((indices == indices[:1]).all())


@lowering_where(_looks_up_the_same)
def look_up(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor] | None:
    """Frozen positions that are the same for each row of the batch are looked up once.

    TensorFlow's converter computes what it knows, and a small table would lie in the file once for each row.
    """
    if context.constants.value(inputs[0]) is None:
        return None
    indices = folded(op.inputs[1])
    rows = tf.gather(inputs[0], indices[:1])
    repeated = tf.tile(rows, [len(indices), *[1] * (rows.shape.rank - 1)])
    context.untiled[repeated.name] = rows
    return [repeated]


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
