"""Finds out which numbers of a model's inputs are looked up in an Embedding, and how many entries that has.

An input goes there as it is or cast, or some of its columns do, cut out and put into another shape. Which ones is seen
by sending positions in place of numbers through the ops that only move them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from edgefl_converters.emission.traced_ops import computed, folded
from edgefl_converters.training_step.lookups import Lookup
from edgefl_converters.training_step.ports import Port
from edgefl_converters.training_step.tracing import Trace, Traces

__all__ = ["index_sizes"]

_FIRST, _ALL = slice(0, 1), slice(None)
_MOVING = {
    **dict.fromkeys(("BroadcastTo", "Cast", "EnsureShape", "ExpandDims", "GatherV2", "Identity"), _FIRST),
    **dict.fromkeys(("PreventGradient", "Reshape", "ReverseV2", "Roll", "Slice", "SplitV", "Squeeze"), _FIRST),
    **dict.fromkeys(("StopGradient", "StridedSlice", "Tile", "Transpose", "Unpack"), _FIRST),
    **dict.fromkeys(("IdentityN", "Pack"), _ALL),
    "ConcatV2": slice(0, -1),
    "Split": slice(1, 2),
}
"""Ops that move numbers to other places, and which of their inputs hold the numbers."""
_EXACT = 2**24
"""Positions up to which a float32 tells one from the next."""


def index_sizes(traces: Traces, inputs: Sequence[Port]) -> dict[str, int | tuple[int | None, ...]]:
    """Returns for each input that is looked up how many entries there are to look up: its numbers are smaller.

    Args:
        traces: of the model.
        inputs: of the model, in its order.

    Returns:
        By name, one number for all of a row's values, or one for each of them in row-major order, None for those that
        are looked up nowhere.
    """
    sizes = [np.zeros(int(np.prod(port.shape[1:])), np.int64) for port in inputs]
    if sum(int(np.prod(port.shape)) for port in inputs) < _EXACT:
        for trace in traces.functions.values():
            for lookup in traces.lookups:
                if lookup.indices.graph is trace.graph:
                    _note(sizes, trace, lookup)
    return {port.name: _as_document(each) for port, each in zip(inputs, sizes, strict=True) if each.any()}


def _note(sizes: Sequence[NDArray[np.int64]], trace: Trace, lookup: Lookup) -> None:
    given = trace.graph.inputs[: len(sizes)]
    known: dict[str, Any] = {}
    start = 0
    for tensor in given:
        count = int(np.prod(tensor.shape))
        positions = np.arange(start, start + count).reshape(tensor.shape)
        known[tensor.name] = positions.astype(tensor.dtype.as_numpy_dtype)
        start += count
    if not _only_moved(lookup.indices, known):
        return
    found = np.unique(computed(lookup.indices, known)).astype(np.int64)
    start = 0
    for tensor, own in zip(given, sizes):
        count = int(np.prod(tensor.shape))
        columns = np.unique((found[(found >= start) & (found < start + count)] - start) % max(len(own), 1))
        own[columns] = np.where(own[columns] == 0, lookup.size, np.minimum(own[columns], lookup.size))
        start += count


def _only_moved(tensor: tf.Tensor, known: dict[str, Any]) -> bool:
    """Tells whether all numbers of a tensor are those of inputs; notes the constants that say where they went."""
    if tensor.name in known:
        return True
    op = tensor.op
    if op.type not in _MOVING or tensor.dtype not in (tf.float32, tf.int32, tf.int64):
        return False
    moved = list(op.inputs)[_MOVING[op.type]]
    for other in op.inputs:
        if not any(other is each for each in moved):
            value = folded(other)
            if value is None:
                return False
            known[other.name] = np.asarray(value)
    return all(_only_moved(each, known) for each in moved)


def _as_document(sizes: NDArray[np.int64]) -> int | tuple[int | None, ...]:
    if (sizes == sizes[0]).all():
        return int(sizes[0])
    return tuple(int(size) or None for size in sizes)
