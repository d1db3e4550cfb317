"""Makes batches of the one size that a model file has out of rows.

A batch of n real rows is filled up with rows of weight 0, and the real ones get weight B/n: Keras divides a loss by B,
so the gradient is that of a batch of n rows. Where a row's result depends on the others (batch normalisation) this
cannot be done, and rows are left out or used twice instead.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgefl.errors import DataError, InvalidSettingError
from edgefl.manifest import ModelManifest
from edgefl.wire.vocabulary import BatchPolicy
from edgefl_device_runtime.training.data import Column
from edgefl_device_runtime.training.file_rows import FileRows

__all__ = ["BatchBuffers", "batches", "mixing", "number_of_batches", "resolve_policy"]

_Reader = Callable[[NDArray[np.intp]], object]
_Move = tuple[_Reader, NDArray[Any], NDArray[Any] | None]
"""A reader of rows, the batch's buffer, and the place to which rows of another type are read before."""
_AHEAD = 1 << 22
"""Bytes of small rows in files that are read before they are needed: the more at once, the more are neighbours."""
_SINGLY = 64
"""Batches before that: what is read ahead for thousands costs about as much as so many, row by row."""


def mixing(manifest: ModelManifest) -> str:
    """Says in words what mixes the rows of a batch."""
    if not manifest.of_whole_batches:
        return "a layer of this model (batch normalisation) mixes the rows of a batch"
    first, *others = manifest.of_whole_batches
    more = f" (and {len(others)} more)" if others else ""
    return f"{first}{more} is computed from all rows of a batch together"


def resolve_policy(
    policy: BatchPolicy | str, *, rows: int, batch_size: int, mixes_rows: bool, why: str = "the model mixes its rows"
) -> BatchPolicy:
    """Says what is done with the rows left over after the last full batch.

    Args:
        policy: the caller's wish; ``model`` means: pad where rows are independent, else drop, or refill when there is
            less than one batch.
        rows: how many there are.
        batch_size: real rows of a full batch.
        mixes_rows: whether padding would be felt by the real rows.
        why: in words.

    Returns:
        ``PAD``, ``DROP`` or ``REFILL``.

    Raises:
        InvalidSettingError: no such policy, or padding where rows are mixed.
        DataError: everything would be dropped.
    """
    try:
        policy = BatchPolicy[policy.upper()] if isinstance(policy, str) else BatchPolicy(policy)
    except (KeyError, ValueError) as error:
        names = ", ".join(each.name.lower() for each in BatchPolicy)
        raise InvalidSettingError(f"Unknown batch policy {policy!r}, expected one of {names}.") from error
    if policy is BatchPolicy.MODEL:
        if not mixes_rows:
            return BatchPolicy.PAD
        return BatchPolicy.DROP if rows >= batch_size else BatchPolicy.REFILL
    if policy is BatchPolicy.PAD and mixes_rows:
        raise InvalidSettingError(
            f"The batch policy 'pad' cannot be used: {why}.",
            hint="Use 'drop' or 'refill'.",
        )
    if policy is BatchPolicy.DROP and rows < batch_size:
        raise DataError(
            f"The batch policy 'drop' leaves nothing of {rows} rows: a batch has {batch_size}.",
            hint="Use the policy 'refill', or more data.",
        )
    return policy


def number_of_batches(rows: int, batch_size: int, policy: BatchPolicy) -> int:
    """Batches of one epoch."""
    full, rest = divmod(rows, batch_size)
    return full + (rest > 0 and policy is not BatchPolicy.DROP)


def batches(
    order: NDArray[np.intp], batch_size: int, static_size: int, policy: BatchPolicy
) -> Iterator[tuple[NDArray[np.intp], int]]:
    """Cuts an order of rows into batches.

    Args:
        order: indices of the rows of one epoch, shape ``[rows]``.
        batch_size: real rows of a full batch, at most `static_size`.
        static_size: rows of every batch as the model takes it.
        policy: ``PAD``, ``DROP`` or ``REFILL``, which goes on with the first rows of the epoch again.

    Yields:
        Row indices of shape ``[static_size]`` and how many of them count: those at the beginning, which the others
        repeat.
    """
    rows = len(order)
    for start in range(0, rows, batch_size):
        chosen = order[start : start + batch_size]
        if len(chosen) < batch_size:
            if policy is BatchPolicy.DROP:
                return
            if policy is BatchPolicy.REFILL:
                chosen = order[np.arange(start, start + batch_size) % rows]
        yield (chosen if len(chosen) == static_size else np.resize(chosen, static_size)), len(chosen)


class BatchBuffers:
    """The arrays of one batch, allocated once and filled again for every step.

    Args:
        columns: the data, one column for each input of the signature that comes from data.
        tensors: the signature's tensor name of each column's name.
        static_size: rows of every batch.
        sample_weight: the rows' weights, float32 ``[rows]``, or None for 1.
        divides: True for training, where the n real rows of a batch of B get B/n times their weight.

    Attributes:
        arrays: tensor name to the buffer of shape ``[static_size, ...]``.
        weights: the buffer of row weights, float32 ``[static_size]``.
    """

    def __init__(
        self,
        columns: Sequence[Column],
        tensors: Mapping[str, str],
        static_size: int,
        sample_weight: NDArray[np.float32] | None = None,
        *,
        divides: bool,
    ) -> None:
        self.arrays: dict[str, NDArray[Any]] = {}
        self.weights = np.empty(static_size, np.float32)
        self._moves: list[_Move] = []
        self._ahead: list[tuple[FileRows, _Move]] = []
        self._most_ahead = sys.maxsize
        for column in columns:
            data, shape = column.data, (static_size, *column.data.shape[1:])
            buffer = self.arrays[tensors[column.name]] = np.empty(shape, column.dtype)
            # Another type is converted batch by batch: large data is never held twice.
            raw = None if data.dtype == column.dtype else np.empty(shape, data.dtype)
            move = (_reader(data, buffer if raw is None else raw), buffer, raw)
            ahead = _rows_ahead(data)
            if isinstance(data, FileRows) and data.has_neighbours(ahead):
                self._ahead.append((data, move))
                self._most_ahead = min(self._most_ahead, max(1, ahead // static_size))
            else:
                self._moves.append(move)
        self._sample_weight = sample_weight
        self._static_size = static_size
        self._divides = divides
        self._filled = 0

    def fill(self, cut: Iterator[tuple[NDArray[np.intp], int]]) -> Iterator[int]:
        """Copies the rows of one batch after the other into the buffers and sets their weights.

        Args:
            cut: what `batches` yields; of rows that are in files, the next ones are read together.

        Yields:
            How many rows of the batch count; the others have weight 0.

        Raises:
            DataNotReadyError: a file was changed since it was opened.
        """
        # Whoever trains a few steps shall not wait for what would be read ahead for many.
        singly = cut if not self._ahead else islice(cut, _SINGLY)
        moves = (*self._moves, *(move for _, move in self._ahead))
        for rows, real in singly:
            _copy(moves, rows)
            self._weigh(rows, real)
            yield real
        while coming := list(islice(cut, self._most_ahead)):
            wanted = np.concatenate([rows for rows, _ in coming])
            found = [self._read_ahead(data, move[1], wanted) for data, move in self._ahead]
            for number, (rows, real) in enumerate(coming):
                for read, where in found:
                    read(where[number])
                _copy(self._moves, rows)
                self._weigh(rows, real)
                yield real
            found.clear()  # before the next ones are read

    @staticmethod
    def _read_ahead(data: FileRows, buffer: NDArray[Any], wanted: NDArray[np.intp]) -> tuple[_Reader, NDArray[np.intp]]:
        found, where = data.gather(wanted)
        return _reader(found.astype(buffer.dtype, copy=False), buffer), where.reshape(-1, len(buffer))

    def _weigh(self, rows: NDArray[np.intp], real: int) -> None:
        if self._sample_weight is None:
            if real != self._filled:
                self.weights[:real] = self._scale(real)
                self.weights[real:] = 0.0
                self._filled = real
        else:
            self._sample_weight.take(rows, 0, self.weights, "clip")
            if real != self._static_size:
                self.weights[:real] *= self._scale(real)
                self.weights[real:] = 0.0

    def _scale(self, real: int) -> np.float32:
        return np.float32(self._static_size / real) if self._divides else np.float32(1.0)


def _reader(data: NDArray[Any] | FileRows, out: NDArray[Any]) -> _Reader:
    """A function that copies rows into an array."""
    if isinstance(data, FileRows):
        return data.reader(out)
    # mode="raise" would take a detour over a temporary array; the indices are ours and in range.
    return lambda rows: data.take(rows, 0, out, "clip")


def _copy(moves: Iterable[_Move], rows: NDArray[np.intp]) -> None:
    for read, buffer, raw in moves:
        read(rows)
        if raw is not None:
            np.copyto(buffer, raw, casting="unsafe")


def _rows_ahead(data: NDArray[Any] | FileRows) -> int:
    """Says how many rows to read together: `_AHEAD`, or an eighth of what the order of so many rows takes anyway."""
    return max(_AHEAD, 2 * len(data)) * len(data) // max(1, data.nbytes)
