"""Checks the numbers that a model is given: finite, whole, in a range."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgefl.errors import DataError
from edgefl.manifest import TensorSpec
from edgefl_device_runtime.training.file_rows import FileRows

__all__ = ["Expected", "check_finite"]

_CHUNK = 1 << 16
"""Elements that are checked at a time, so that checking needs no memory worth mentioning."""


class Expected:
    """One input's demands: rows of one shape, of finite numbers or of numbers in a range.

    Args:
        what: ``input`` or ``target``.
        spec: of the signature's input.
        classes: of a target of labels, their number.
        entries: of an input that is looked up, how many there are to look up, as the manifest's `index_sizes` say it.
        bounds: of a target of numbers, between which its loss is made for them; None: for any.
        ignored: of a target of labels, the number that its loss leaves out, which need be no class; None: none.
    """

    def __init__(
        self,
        what: str,
        spec: TensorSpec,
        classes: int | None = None,
        entries: int | tuple[int | None, ...] | None = None,
        bounds: tuple[float, float] | None = None,
        ignored: int | None = None,
    ) -> None:
        self.name = spec.name
        self.title = f"{what.capitalize()} {spec.name!r}"
        self.shape, self.ndim = tuple(spec.shape[1:]), len(spec.shape)
        self.dtype = np.dtype(spec.dtype)
        self.classes = classes
        self._whole = self.dtype.kind in "iu"
        self._low: Any = 0
        self._high: Any = 0
        if self._whole:
            info = np.iinfo(self.dtype)
            self._low, self._high = int(info.min), int(info.max)
        if classes is not None and self._whole:
            self._low, self._high = 0, classes - 1
        self._entries = entries
        self._bounds, self._ignored = bounds, ignored
        if bounds is not None:
            self._low, self._high = bounds
        if isinstance(entries, int):
            self._low, self._high = 0, self._last(entries)
        elif entries is not None:
            free = (self._low, self._high) if self._whole else (-np.inf, np.inf)
            ends = [free if each is None else (0, self._last(each)) for each in entries]
            dtype = np.int64 if self._whole else np.float64
            self._low, self._high = (np.array(each, dtype).reshape(self.shape) for each in zip(*ends))
        self._ends = self._whole or entries is not None or bounds is not None
        self._one_range = not isinstance(self._low, np.ndarray)

    def fits_as_it_is(self, array: NDArray[Any]) -> bool:
        """Says at the least cost whether an array needs nothing done to it, as those of a loop over batches.

        False also where it only takes a closer look.
        """
        if array.dtype is not self.dtype or array.ndim != self.ndim or array.shape[1:] != self.shape:
            return False
        if not 0 < array.size <= _CHUNK:
            return False
        flags = array.flags
        if not (flags.c_contiguous and flags.aligned):
            return False
        if self._ends:
            # A range that is the same for all values leaves out NaN and infinity too.
            return not self._leaves(array) and (self._one_range or bool(np.isfinite(array).all()))
        return self.dtype.kind == "f" and bool(np.isfinite(array).all())

    def check(self, array: NDArray[Any] | FileRows) -> None:
        """Checks every value of rows that have the right shape.

        Raises:
            DataError: one does not fit; names the row, and where in it.
        """
        if not self._whole and array.dtype.kind == "f":
            check_finite(self.title, array, self.dtype)
        if not self._ends:
            return
        for start, chunk in _chunks(array):
            if self._whole and chunk.dtype.kind == "f":
                with np.errstate(invalid="ignore"):
                    wrong = ~(np.rint(chunk) == chunk)
                if wrong.any():
                    raise DataError(
                        f"{self.title} expects whole numbers, got {chunk[wrong].flat[0]} in {_place(wrong, start)}.",
                        hint="Round or encode the values first.",
                    )
            if self._leaves(chunk):
                self._refuse(chunk, start)

    def _last(self, entries: int) -> int | float:
        """The largest number that may be looked up: of a float its whole part counts."""
        return entries - 1 if self._whole else float(np.nextafter(np.float32(entries), np.float32(0)))

    def _leaves(self, chunk: NDArray[Any]) -> bool:
        """Tells whether a value leaves the range, or is no number."""
        if chunk.dtype.kind == "b" and self._entries is None:
            return False
        if self._one_range and chunk.min() >= self._low and chunk.max() <= self._high:
            return False
        return bool(self._wrong(chunk).any())

    def _wrong(self, chunk: NDArray[Any]) -> NDArray[np.bool_]:
        """Tells of each value whether it leaves the range, or is no number."""
        wrong: NDArray[np.bool_] = ~((chunk >= self._low) & (chunk <= self._high))
        if self._ignored is not None:
            wrong &= chunk != self._ignored
        return wrong

    def _refuse(self, chunk: NDArray[Any], start: int) -> None:
        wrong = self._wrong(chunk)
        first = tuple(int(each[0]) for each in np.nonzero(wrong))
        low, high = (int(np.broadcast_to(each, chunk.shape)[first] // 1) for each in (self._low, self._high))
        hint = None
        if self._bounds is not None:
            hint = f"The loss that the model was compiled with knows two classes: write them as {low} and {high}."
        elif self.classes is not None:
            hint = "Labels count from 0 and are smaller than the model's number of classes."
        elif self._entries is not None and low == 0:
            hint = (
                f"They are looked up in an Embedding of {high + 1} entries. Give what it does not know one of its "
                "numbers, or convert the model with a larger input_dim."
            )
        numbers = "numbers" if self._bounds is not None else "whole numbers"
        raise DataError(
            f"{self.title} expects {numbers} from {low} to {high}{self._or_ignored(low, high)}, got {chunk[first]} in "
            f"{_place(wrong, start)}.",
            hint=hint,
        )

    def _or_ignored(self, low: int, high: int) -> str:
        return "" if self._ignored is None or low <= self._ignored <= high else f", or {self._ignored} to be ignored"


def check_finite(title: str, array: NDArray[Any] | FileRows, dtype: np.dtype[Any]) -> None:
    """Checks that every number is finite in the type that the model takes.

    Raises:
        DataError: names the first row in which one is not.
    """
    for start, chunk in _chunks(array):
        if chunk.dtype != dtype:
            with np.errstate(over="ignore"):
                chunk = chunk.astype(dtype)
        finite = np.isfinite(chunk)
        if not finite.all():
            raise DataError(
                f"{title} must be finite {dtype.name} numbers, got NaN, infinity or an overflow in "
                f"{_place(~finite, start)}.",
                hint="Remove such rows or fill them in.",
            )


def _place(wrong: NDArray[np.bool_], start: int) -> str:
    """The row of the first wrong value, and its place in a row of several."""
    row, *within = (int(each[0]) for each in np.nonzero(wrong))
    if wrong[0].size < 2:
        return f"row {start + row}"
    return f"row {start + row} at position {within[0] if len(within) == 1 else tuple(within)}"


def _chunks(array: NDArray[Any] | FileRows) -> Iterator[tuple[int, NDArray[Any]]]:
    """Pieces of whole rows and the row at which each begins; none for an empty array."""
    if array.size:
        step = max(1, _CHUNK // (array.size // len(array)))
        if isinstance(array, FileRows):
            yield from array.pieces(step)
            return
        for start in range(0, len(array), step):
            yield start, array[start : start + step]
