"""Sums up a device's examples, for tasks that ask for statistics: see `edgefl.summaries`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from numpy.typing import NDArray

from edgefl.manifest import ModelManifest
from edgefl.summaries import ArraySummary, Summary
from edgefl_device_runtime.tasks.examples import Examples
from edgefl_device_runtime.training.data import Column, prepare
from edgefl_device_runtime.training.file_rows import FileRows

__all__ = ["sum_up"]

_ELEMENTS = 1 << 18
"""About so many are looked at together; a number of its own, so that the sums do not depend on the machine."""


def sum_up(examples: Examples, manifest: ModelManifest) -> Summary:
    """Sums up inputs and targets, as the model takes them; weights of rows count for nothing.

    Raises:
        DataError: they do not fit the model.
    """
    data = prepare(manifest, "train", examples.x, examples.y)
    return Summary(data.rows, {each.name: _summed_up(each) for each in data.columns})


def _summed_up(column: Column) -> ArraySummary:
    shape = tuple(column.data.shape[1:])
    return ArraySummary.of(_pieces(column), shape, whole=column.dtype.kind in "iu")


def _pieces(column: Column) -> Iterator[NDArray[Any]]:
    data = column.data
    step = max(1, _ELEMENTS // max(1, data.size // len(data)))
    if isinstance(data, FileRows):
        pieces: Iterator[NDArray[Any]] = (piece for _, piece in data.pieces(step))
    else:
        pieces = (data[start : start + step] for start in range(0, len(data), step))
    return (piece.astype(column.dtype, copy=False) for piece in pieces)
