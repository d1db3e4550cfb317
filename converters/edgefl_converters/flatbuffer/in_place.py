"""Tells constant matrices that are better read where they lie, on the left of a product, than packed for its right."""

from __future__ import annotations

__all__ = ["LARGE", "is_read_in_place"]

LARGE = 1 << 18
"""Bytes of a matrix from which it is read in place. Below 256 x 256 transposing what it is multiplied with costs more
than a fifth of the product."""

_NARROW = 64
"""Rows or columns of a matrix up to which that costs as much as the product."""

_TILE, _IDLE = 32, 3
"""Columns of a product that XNNPACK makes at once on x86_64: rows become columns, and 8 cost as much as 32. Idle may be
a third of the others."""


def is_read_in_place(shape: tuple[int, int], rows: int) -> bool:
    """Tells whether a float32 matrix that is multiplied with so many rows costs little if it is read in place."""
    return 4 * shape[0] * shape[1] >= LARGE and min(shape) > _NARROW and -rows % _TILE * _IDLE <= rows
