"""SHA-256, and the one way in which edgefl writes JSON that is hashed."""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["canonical_json", "new_sha256", "sha256", "weights_hash"]

_OWN_MODULES = ("_sha2", "_sha256")
"""The modules in which Python has a SHA-256 of its own: from 3.12 on, and before."""


def new_sha256() -> Any:
    """A SHA-256 of nothing yet, with ``update``, ``digest`` and ``hexdigest``.

    OpenSSL's, which is the fastest, in a process that has OpenSSL anyway. Elsewhere Python's own, as the standard
    library's `random` does it: ``hashlib`` would load OpenSSL, which is 4 MB of a training process's memory.
    """
    if "_hashlib" not in sys.modules:
        for name in _OWN_MODULES:
            with contextlib.suppress(ImportError):  # another Python has it under the other name, or not at all
                return importlib.import_module(name).sha256()
    from hashlib import sha256 as of_openssl

    return of_openssl()


def sha256(data: bytes | memoryview) -> str:
    """The SHA-256 of bytes, as 64 lower-case hexadecimal digits."""
    digest = new_sha256()
    digest.update(data)
    return str(digest.hexdigest())


def canonical_json(value: Any) -> bytes:
    """JSON with sorted keys, no spaces and only ASCII: equal values give equal bytes in every language."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def weights_hash(*parts: NDArray[np.float32]) -> str:
    """The SHA-256 of a flat vector as little-endian float32, which is also how weights travel.

    Args:
        parts: the vector, shape ``[layout.size]``, or what it consists of, of any shapes; none is copied that is
            little-endian float32.
    """
    digest = new_sha256()
    for part in parts:
        digest.update(np.ascontiguousarray(part, dtype="<f4").data)
    return str(digest.hexdigest())
