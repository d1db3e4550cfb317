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


def weights_hash(*parts: NDArray[np.float32]) -> str:
    """The SHA-256 of a flat vector as little-endian float32, which is also how weights travel.

    Args:
        parts: the vector, shape ``[layout.size]``, or what it consists of, of any shapes; none is copied that is
            little-endian float32.
    """
    digest = hashlib.sha256()
    for part in parts:
        digest.update(np.ascontiguousarray(part, dtype="<f4").data)
    return digest.hexdigest()
