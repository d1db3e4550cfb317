"""SHA-256, and the one way in which edgefl writes JSON that is hashed."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["canonical_json", "sha256", "weights_hash"]


def sha256(data: bytes | memoryview) -> str:
    """The SHA-256 of bytes, as 64 lower-case hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def canonical_json(value: Any) -> bytes:
    """JSON with sorted keys, no spaces and only ASCII: equal values give equal bytes in every language."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def weights_hash(vector: NDArray[np.float32]) -> str:
    """The SHA-256 of a flat vector as little-endian float32, which is also how weights travel.

    Args:
        vector: shape ``[layout.size]``.
    """
    return sha256(np.ascontiguousarray(vector, dtype="<f4").tobytes())
