"""Vectors that are linear combinations of the updates, of which only the coefficients are in memory.

Most robust rules ask for distances and answer with coefficients; what comes before a rule (mixing neighbours, scaling
to a norm) is a matrix of coefficients. So whatever is composed, the updates are read once for their distances and once
for the result, and beside them there are only small matrices.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from edgefl_server.aggregation.averaging import pieces
from edgefl_server.aggregation.updates import Columns

__all__ = ["Points"]

_AT_ONCE = 1 << 17
"""Elements of all vectors that are looked at together, so that they stay in the cache."""
_FAR_ABOVE = 2.0**16
"""Times the median norm: beside squares of what is longer than that, those of all others lose their digits."""

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]


class _Base:
    """The vectors of which points are made: the updates, and others that are in memory."""

    def __init__(self, columns: Columns, further: Sequence[NDArray[np.float32]] = ()) -> None:
        self.columns, self.further = columns, tuple(further)
        self.count = len(columns.facts) + len(self.further)

    def blocks(self) -> Iterator[tuple[slice, NDArray[np.float64]]]:
        """All of them, block by block of their elements, float64 ``[count, elements]``."""
        for part, block in self.columns.blocks():
            for piece in pieces(block.shape[1], max(1, _AT_ONCE // (self.count + 1))):
                whole = slice(part.start + piece.start, part.start + piece.stop)
                rows = np.empty((self.count, piece.stop - piece.start))
                rows[: len(block)] = block[:, piece]
                for row, vector in enumerate(self.further, len(block)):
                    rows[row] = vector[whole]
                yield whole, rows

    @cached_property
    def measured(self) -> tuple[Vector, Matrix]:
        """By what each was divided, float64 ``[count]``, and the squared distances after that.

        These are float64 ``[count + 1, count + 1]``; the last point is 0, so that its are squared norms. What is far
        above the median norm is divided by a power of two that brings it there: a device may send 10²⁰, and once it is
        shortened to the length of others, its distances to them must not be the rounding errors of 10⁴⁰.
        """
        ones = np.ones(self.count)
        found = self._distances(ones)
        norms = np.sqrt(found[:-1, -1])
        there = np.sort(norms[norms > 0])
        if not there.size or there[-1] <= (most := _FAR_ABOVE * there[(there.size - 1) // 2]):
            return ones, found
        by = np.exp2(np.floor(np.log2(np.maximum(norms / most, 1.0))))
        return by, self._distances(by)

    def _distances(self, by: Vector) -> Matrix:
        # Differences are squared rather than products subtracted, which would lose all digits of vectors that are
        # alike; and not by a BLAS, whose sums may depend on its number of threads.
        found = np.zeros((self.count + 1, self.count + 1))
        for _, rows in self.blocks():
            rows /= by[:, None]
            found[:-1, -1] += np.einsum("ij,ij->i", rows, rows)
            for index in range(self.count - 1):
                apart = rows[index + 1 :] - rows[index]
                found[index, index + 1 : -1] += np.einsum("ij,ij->i", apart, apart)
        return found + found.T


class Points:
    """Vectors ``[n]`` of one size, see the module.

    Args:
        columns: of the updates' section.
        weights: float64 ``[n]``: what each counts for where a rule asks.
        seed: of what is drawn.

    Attributes:
        weights: see above; all 1 once they are mixed.
        seed: see above.
        size: elements of each.
    """

    def __init__(self, columns: Columns, weights: Vector, seed: int = 0) -> None:
        self._set(_Base(columns), np.eye(len(columns.facts)), weights, seed)

    def _set(self, base: _Base, coefficients: Matrix, weights: Vector, seed: int) -> Points:
        self._base, self._coefficients = base, coefficients
        self.weights, self.seed, self.size = weights, seed, base.columns.size
        return self

    def _like(self, coefficients: Matrix, weights: Vector) -> Points:
        return Points.__new__(Points)._set(self._base, coefficients, weights, self.seed)

    def __len__(self) -> int:
        return len(self._coefficients)

    def mixed(self, matrix: Matrix) -> Points:
        """Linear combinations of these: float64 ``[m, n]`` makes m points, each of which counts the same."""
        return self._like(_product(matrix, self._coefficients), np.ones(len(matrix)))

    def scaled(self, factors: Vector) -> Points:
        """Each times a factor, float64 ``[n]``; what they count for stays."""
        return self._like(self._coefficients * factors[:, None], self.weights)

    def chosen(self, indices: Sequence[int] | NDArray[np.intp]) -> Points:
        """Some of these; what they count for stays."""
        return self._like(self._coefficients[indices], self.weights[indices])

    def extended(self, vector: NDArray[np.float32]) -> Points:
        """These and one more, float32 ``[size]``, as the last; distances are measured anew."""
        base = _Base(self._base.columns, (*self._base.further, vector))
        count = len(self._base.columns.facts) + len(self._base.further)
        coefficients = np.zeros((len(self) + 1, count + 1))
        coefficients[:-1, :-1] = self._coefficients
        coefficients[-1, -1] = 1
        return Points.__new__(Points)._set(base, coefficients, np.append(self.weights, 1.0), self.seed)

    @cached_property
    def distances(self) -> Matrix:
        """Squared distances, float64 ``[n, n]``."""
        rows, _, through = self._forms
        # ‖Σ aₖ xₖ‖² = −½ Σ aₖ aₗ ‖xₖ − xₗ‖² where the coefficients add up to nothing, as those of a difference do.
        form = _product(through, rows.T)
        ends = form.diagonal()
        # From either end the same to the last bit: of two that are each other's nearest, rounding must prefer none.
        both = 0.5 * (form + form.T)
        found = np.maximum(both - 0.5 * (ends[:, None] + ends[None, :]), 0.0)
        np.fill_diagonal(found, 0.0)
        return found

    @cached_property
    def squared_norms(self) -> Vector:
        """Squared L2 norms, float64 ``[n]``."""
        rows, among, _ = self._forms
        rows = rows.copy()
        rows[:, -1] -= 1  # minus the origin, which is 0
        found: Vector = np.maximum(-0.5 * (_product(rows, among) * rows).sum(axis=1), 0.0)
        return found

    def to_mixture(self, weights: Vector) -> Vector:
        """Squared distances of these to their weighted mean, float64 ``[n]``.

        Args:
            weights: float64 ``[n]``, which add up to 1.
        """
        rows, among, through = self._forms
        mixture = _product(weights[None, :], rows)
        from_mixture = _product(mixture, among)
        ends = (through * rows).sum(axis=1) + (from_mixture * mixture).sum()
        found: Vector = np.maximum((through * mixture).sum(axis=1) - 0.5 * ends, 0.0)
        return found

    def largest(self) -> Vector:
        """The largest element of each in size, float64 ``[n]``."""
        found = np.zeros(len(self))
        for _, rows in self.blocks():
            np.maximum(found, np.abs(rows).max(axis=1), out=found)
        return found

    def combined(self, coefficients: Vector) -> Vector:
        """The sum of these times coefficients, float64 ``[n]``: float64 ``[size]``."""
        factors = _product(coefficients[None, :], self._coefficients)[0]
        total = np.zeros(self.size)
        for part, rows in self._base.blocks():
            for factor, row in zip(factors, rows, strict=True):
                if factor:
                    row *= factor
                    total[part] += row
        return total

    def blocks(self) -> Iterator[tuple[slice, Matrix]]:
        """These, block by block of their elements.

        Yields:
            Which elements, and float64 ``[n, elements]``, which is the caller's.
        """
        plain = self._coefficients.shape[0] == self._coefficients.shape[1] and bool(
            (self._coefficients == np.eye(len(self))).all()
        )
        for part, rows in self._base.blocks():
            yield part, rows if plain else _product(self._coefficients, rows)

    @cached_property
    def _forms(self) -> tuple[Matrix, Matrix, Matrix]:
        """Coefficients of what was measured, the squared distances of that, and the product of both.

        The coefficients add up to 1 with those of the origin, which are the last.
        """
        by, among = self._base.measured
        rows = self._coefficients * by
        rows = np.column_stack([rows, 1.0 - rows.sum(axis=1)])
        return rows, among, _product(rows, among)


def _product(left: Matrix, right: Matrix) -> Matrix:
    """A product of matrices whose sums are in order and which skips zeros; a BLAS's may depend on its threads."""
    found = np.zeros((len(left), right.shape[1]))
    for row, total in zip(left, found, strict=True):
        for index in np.flatnonzero(row):
            total += row[index] * right[index]
    return found
