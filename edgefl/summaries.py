"""Sums up local data so that sums of devices are what the pooled data would give: a device makes one, a server adds up.

Moments are merged as in Chan, Golub and LeVeque 1983, *Algorithms for Computing the Sample Variance*, equation 2.1b: a
sum of squares about the mean, which keeps its digits where plain squares lose them. Quantiles come from counts in
buckets of logarithmic width (DDSketch: Masson, Rim and Lee 2019, section 2): integers, so that the order in which
devices are added does not matter, and one message, since no device needs to know the others' range. A quantile is at
most one hundredth of itself away from a value of that rank.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgefl.errors import CodecError

__all__ = ["ArraySummary", "Summary", "features_of", "with_sketch"]

MOST_FEATURES = 1024
"""An array with more numbers a row is summed up by its last axis, the positions before it together."""
MOST_SKETCHED = 64
"""An array with more features has no quantiles: they would be larger than many models."""
MOST_VALUES = 1024
"""Whole numbers of more different values are no classes, and not counted one by one."""
_ACCURACY = 0.01
_BASE = (1 + _ACCURACY) / (1 - _ACCURACY)
_LOG_BASE = math.log(_BASE)
_SMALLEST, _LARGEST = 1e-9, 1e12
"""Sizes: smaller ones count as 0, and larger ones as this."""
_OFFSET = 1 - math.ceil(math.log(_SMALLEST) / _LOG_BASE)
_HIGHEST = _OFFSET + math.ceil(math.log(_LARGEST) / _LOG_BASE)
_MOST_COUNT = 2**53
_LARGEST_NUMBER = 1e100
"""Sums and squares of float32 numbers stay below it, and the square of a difference of such means is finite."""

Numbers = NDArray[np.float64]


def features_of(shape: tuple[int, ...]) -> int:
    """Returns how many numbers of a row are looked at by themselves.

    Args:
        shape: of a row.
    """
    size = math.prod(shape)
    if size <= MOST_FEATURES:
        return size
    return shape[-1] if shape[-1] <= MOST_FEATURES else 1


def with_sketch(shape: tuple[int, ...]) -> bool:
    """Whether rows of a shape have quantiles."""
    return features_of(shape) <= MOST_SKETCHED


@dataclass(frozen=True, eq=False)
class ArraySummary:
    """One array, summed up.

    Attributes:
        shape: of a row.
        count: numbers of each feature: rows times the positions that are taken together.
        sums: float64 ``[features]``.
        squares: float64 ``[features]``: of the differences from the mean, summed.
        low: float64 ``[features]``: the smallest.
        high: float64 ``[features]``: the largest.
        sketch: counts by bucket, for each feature; None: the rows have too many.
        values: counts by value, of whole numbers; None: they are none, or of too many values.
    """

    shape: tuple[int, ...]
    count: int
    sums: Numbers
    squares: Numbers
    low: Numbers
    high: Numbers
    sketch: tuple[Mapping[int, int], ...] | None = None
    values: Mapping[int, int] | None = None

    @classmethod
    def of(cls, pieces: Iterable[NDArray[Any]], shape: tuple[int, ...], *, whole: bool) -> ArraySummary:
        """Sums up an array.

        Args:
            pieces: of at least one row each, ``[rows, *shape]``, finite.
            shape: of a row.
            whole: the numbers are whole.
        """
        found: ArraySummary | None = None
        for piece in pieces:
            own = _of_piece(piece, shape, whole)
            found = own if found is None else found.merged(own)
        if found is None:
            raise ValueError("no rows")
        return found

    @property
    def mean(self) -> Numbers:
        """Mean of each feature, float64 ``[features]``."""
        return self.sums / self.count

    @property
    def variance(self) -> Numbers:
        """Variance of each feature, of the numbers as they are (divided by their count), float64 ``[features]``."""
        return self.squares / self.count

    def quantiles(self, shares: Iterable[float]) -> list[list[float]] | None:
        """The values below which shares of the numbers lie, a list for each feature; None where there is no sketch."""
        if self.sketch is None:
            return None
        return [[_quantile(each, share) for share in shares] for each in self.sketch]

    def merged(self, other: ArraySummary) -> ArraySummary:
        """Both together.

        Raises:
            ValueError: their rows have different shapes.
        """
        if self.shape != other.shape:
            raise ValueError(f"rows of shape {other.shape} with rows of shape {self.shape}")
        count = self.count + other.count
        apart = np.square(other.mean - self.mean) * (self.count * other.count / count)
        sketch = None
        if self.sketch is not None and other.sketch is not None:
            sketch = tuple(_added(one, two) for one, two in zip(self.sketch, other.sketch, strict=True))
        values = None
        if self.values is not None and other.values is not None:
            together = _added(self.values, other.values)
            values = together if len(together) <= MOST_VALUES else None
        return ArraySummary(
            self.shape,
            count,
            self.sums + other.sums,
            self.squares + other.squares + apart,
            np.minimum(self.low, other.low),
            np.maximum(self.high, other.high),
            sketch,
            values,
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values, from which `from_json` makes the same to the last bit."""
        found: dict[str, Any] = {"shape": list(self.shape), "count": self.count}
        found |= {name: getattr(self, name).tolist() for name in _VECTORS}
        if self.sketch is not None:
            found["sketch"] = [[[bucket, each[bucket]] for bucket in sorted(each)] for each in self.sketch]
        if self.values is not None:
            found["values"] = [[value, self.values[value]] for value in sorted(self.values)]
        return found

    @classmethod
    def from_json(cls, document: Any) -> ArraySummary:
        """Reads what may come from anywhere.

        Raises:
            ValueError, TypeError, KeyError: it is no summary.
        """
        shape = tuple(_count(each, 2**31) for each in document["shape"])
        features = features_of(shape)
        vectors = {name: _vector(document[name], features) for name in _VECTORS}
        count = _count(document["count"], _MOST_COUNT)
        if count < 1 or (vectors["squares"] < 0).any() or (vectors["low"] > vectors["high"]).any():
            raise ValueError("moments of no numbers")
        mean, rounding = vectors["sums"] / count, 1e-6 * np.maximum(np.abs(vectors["low"]), np.abs(vectors["high"]))
        if (mean < vectors["low"] - rounding).any() or (mean > vectors["high"] + rounding).any():
            raise ValueError("a mean outside of the range")
        # A variance is at most a quarter of the squared range (Popoviciu 1935): what `low` and `high` do not show of a
        # lie, nobody would see.
        if (vectors["squares"] > count * np.square(vectors["high"] - vectors["low"] + rounding) / 4).any():
            raise ValueError("a variance beyond the range")
        sketch = document.get("sketch")
        if (sketch is not None) != with_sketch(shape):  # without that of one device there would be none of all
            raise ValueError("a sketch that is missing, or of too many features")
        if sketch is not None:
            if len(sketch) != features:
                raise ValueError("sketches of other features")
            sketch = tuple(_counts(each, _HIGHEST, count) for each in sketch)
        values = document.get("values")
        if values is not None:
            if len(values) > MOST_VALUES:
                raise ValueError("too many values")
            values = _counts(values, 2**63, count * features)
        return cls(shape, count, **vectors, sketch=sketch, values=values)


_VECTORS = ("sums", "squares", "low", "high")


@dataclass(frozen=True, eq=False)
class Summary:
    """The data of one device, or of several.

    Attributes:
        rows: examples.
        arrays: inputs and targets by the names that the model file gives them.
    """

    rows: int
    arrays: Mapping[str, ArraySummary] = field(default_factory=dict)

    def merged(self, other: Summary) -> Summary:
        """Both together.

        Raises:
            ValueError: they are of different arrays.
        """
        if self.arrays.keys() != other.arrays.keys():
            raise ValueError(f"the arrays {', '.join(other.arrays)} with {', '.join(self.arrays)}")
        return Summary(
            self.rows + other.rows, {name: each.merged(other.arrays[name]) for name, each in self.arrays.items()}
        )

    def encode(self) -> bytes:
        """JSON without spaces; equal summaries give equal bytes."""
        document = {"rows": self.rows, "arrays": {name: each.to_json() for name, each in self.arrays.items()}}
        return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()

    @classmethod
    def decode(cls, data: bytes) -> Summary:
        """Reads what may come from anywhere.

        Raises:
            CodecError: it is no summary.
        """
        try:
            document = json.loads(data)
            rows = _count(document["rows"], _MOST_COUNT)
            arrays = {str(name): ArraySummary.from_json(each) for name, each in document["arrays"].items()}
            if rows < 1 or any(
                each.count * features_of(each.shape) != rows * math.prod(each.shape) for each in arrays.values()
            ):
                raise ValueError("counts that do not fit the rows")
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
            raise CodecError(f"A summary of data cannot be read: {type(error).__name__}: {error}"[:200]) from error
        return cls(rows, arrays)


def _of_piece(piece: NDArray[Any], shape: tuple[int, ...], whole: bool) -> ArraySummary:
    features = features_of(shape)
    numbers = np.asarray(piece, np.float64).reshape(-1, features)
    sums = numbers.sum(axis=0)
    squares = np.square(numbers - sums / len(numbers)).sum(axis=0)
    sketch = tuple(map(_sketched, numbers.T)) if with_sketch(shape) else None
    values = None
    if whole:
        different, counts = np.unique(piece, return_counts=True)
        if len(different) <= MOST_VALUES:
            values = {int(value): int(count) for value, count in zip(different, counts, strict=True)}
    return ArraySummary(shape, len(numbers), sums, squares, numbers.min(axis=0), numbers.max(axis=0), sketch, values)


def _sketched(numbers: Numbers) -> dict[int, int]:
    """Counts by bucket: bucket k > 0 holds what is above ``_BASE ** (k - 1 - _OFFSET)`` up to ``_BASE`` times that."""
    sizes = np.minimum(np.abs(numbers), _LARGEST)
    buckets = np.zeros(len(numbers), np.int64)
    there = sizes >= _SMALLEST
    buckets[there] = np.ceil(np.log(sizes[there]) / _LOG_BASE).astype(np.int64) + _OFFSET
    different, counts = np.unique(np.where(numbers < 0, -buckets, buckets), return_counts=True)
    return {int(bucket): int(count) for bucket, count in zip(different, counts, strict=True)}


def _quantile(counts: Mapping[int, int], share: float) -> float:
    rank = share * (sum(counts.values()) - 1)
    seen = 0
    for bucket in sorted(counts):
        seen += counts[bucket]
        if seen > rank:
            break
    size = 2 * _BASE ** (abs(bucket) - _OFFSET) / (1 + _BASE) if bucket else 0.0
    return math.copysign(size, bucket)


def _added(one: Mapping[int, int], two: Mapping[int, int]) -> dict[int, int]:
    return {key: one.get(key, 0) + two.get(key, 0) for key in one.keys() | two.keys()}


def _count(value: Any, most: int) -> int:
    if type(value) is not int or not 0 <= value <= most:
        raise ValueError(f"a count of {value!r:.40}")
    return value


def _vector(values: Any, features: int) -> Numbers:
    vector = np.asarray(values, np.float64)
    if vector.shape != (features,) or not (np.abs(vector) <= _LARGEST_NUMBER).all():
        raise ValueError(f"numbers of {features} features")
    return vector


def _counts(pairs: Any, most: int, total: int) -> dict[int, int]:
    """Counts by whole number from -most to most, which add up to a total."""
    found: dict[int, int] = {}
    for key, count in pairs:
        if type(key) is not int or abs(key) > most or key in found:
            raise ValueError(f"a count of {key!r:.40}")
        found[key] = _count(count, _MOST_COUNT)
    if sum(found.values()) != total:
        raise ValueError("counts that do not add up")
    return found
