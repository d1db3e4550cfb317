"""Codecs by name: each writes a vector of float32 as bytes; one module each. One comes here to add another.

Others come from entry points ``edgefl.codecs``. What travels in which of them is chosen by whoever sends: of an
outcome by the task (`edgefl.wire.task.SectionCodec`), which also brings the seed of whatever a codec draws.
"""

from edgefl.codecs import drive, eden, floats, int8, ternary  # noqa: F401  (they register themselves)
from edgefl.codecs.base import CODECS, Codec, register
from edgefl.codecs.names import (
    codec,
    codec_names,
    codec_parts,
    codec_spellings,
    decoded,
    encoded,
    encoded_bytes,
    is_codec,
    part_names,
)

__all__ = [
    "CODECS",
    "Codec",
    "codec",
    "codec_names",
    "codec_parts",
    "codec_spellings",
    "decoded",
    "encoded",
    "encoded_bytes",
    "is_codec",
    "part_names",
    "register",
]
