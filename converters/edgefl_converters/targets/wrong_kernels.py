"""Names the forms of ops that tflite-runtime 2.14 computes wrongly without a word, and ai-edge-litert rightly."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["RUNTIME", "repeats_beside_transposed", "reverses_several"]

RUNTIME = "tflite-runtime"
"""The runtime whose kernels they are."""


def repeats_beside_transposed(adj_x: bool, left: Sequence[int], right: Sequence[int]) -> bool:
    """Tells whether a BATCH_MATMUL transposes its left side and repeats its right one along the innermost batch axis.

    The kernel then takes the matrices on the left for one with more rows, which they are not when they lie transposed.

    Args:
        adj_x: whether the left side is to be transposed.
        left: its shape; -1 where it is not known.
        right: the shape of the other side. One of rank 2 is not taken so.
    """
    return adj_x and len(left) >= 3 and len(right) >= 3 and right[-3] == 1 and left[-3] != 1


def reverses_several(axes: int) -> bool:
    """Tells whether a REVERSE_V2 reverses more than one axis.

    Args:
        axes: how many it names.
    """
    return axes > 1
