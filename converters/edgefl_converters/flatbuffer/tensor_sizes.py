"""Computes what tensors of a converted file take."""

from __future__ import annotations

import math
from typing import Any

__all__ = ["LARGE", "bytes_of"]

LARGE = 1 << 17
"""Bytes of a tensor from which its ops keep their order. With smaller ones there would be more, smaller partitions."""


def bytes_of(subgraph: Any, tensor: int) -> int:
    """Returns what a tensor of a subgraph takes, as if it were of float32: the others are small."""
    shape = subgraph.tensors[tensor].shape
    return 4 * math.prod(int(size) for size in (() if shape is None else shape))
