"""Lists what Python and numpy raise of an ``.npy`` or ``.npz`` that is damaged or no such file: more than they say."""

from __future__ import annotations

import lzma
import struct
import tokenize
import zipfile
import zlib

__all__ = ["DAMAGED"]

DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    ValueError,
    tokenize.TokenError,  # numpy takes the text of a header that it cannot read for one of Python 2
    NotImplementedError,  # a version or compression that zipfile does not know
    RuntimeError,  # an entry that says that it is encrypted
)
"""Neither OSError, which may be over at the next reading, nor MemoryError."""
