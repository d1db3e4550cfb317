"""Codecs by their spelling, and the use of one, which may come from outside and meets bytes from outside.

Beside registered names there are ``stc-FRACTION``, and ``rand-FRACTION+CODEC`` for any codec without a memory.
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from edgefl.codecs.base import CODECS, Codec
from edgefl.codecs.subsets import subset_codec
from edgefl.codecs.ternary import ternary_codec
from edgefl.errors import CodecError, first_line

__all__ = [
    "codec",
    "codec_names",
    "codec_parts",
    "codec_spellings",
    "decoded",
    "encoded",
    "encoded_bytes",
    "is_codec",
    "part_names",
]

_SUBSET, _TERNARY = "rand", "stc"
_FRACTION = re.compile(r"0\.(?!0+$)[0-9]{0,5}[1-9]")
"""Between 0 and 1, in one way only: at most six decimals, the last no 0."""


def codec(name: str) -> Codec:
    """The codec of a name or a spelling.

    Raises:
        CodecError: there is none.
    """
    made = _made(name)
    return CODECS.get(name) if made is None else made


def is_codec(name: str) -> bool:
    """Whether there is a codec of that name or spelling."""
    try:
        codec(name)
    except CodecError:
        return False
    return True


def codec_names() -> tuple[str, ...]:
    """All registered names, sorted."""
    return tuple(sorted(CODECS.names()))


def codec_spellings() -> tuple[str, ...]:
    """All registered names, and the forms that stand for more, for people."""
    return (*codec_names(), "stc-FRACTION", "rand-FRACTION+CODEC")


def part_names() -> tuple[str, ...]:
    """Everything that codecs are made of, for what a device says that it knows; see `codec_parts`."""
    return tuple(sorted((*codec_names(), _SUBSET)))


def codec_parts(name: str) -> tuple[str, ...]:
    """The names of what a codec is made of, without fractions: ``rand-0.25+drive`` is ``rand`` and ``drive``.

    Args:
        name: or spelling; there need not be such a codec.
    """
    return tuple(_without_fraction(each) for each in name.split("+"))


def encoded(name: str, vector: NDArray[np.float32], seed: int = 0) -> bytes:
    """Encodes a vector of shape ``[n]`` with a codec.

    Args:
        name: the codec's.
        vector: float32 ``[n]``.
        seed: from 0 to 2⁶⁴ - 1, of whatever the codec draws.

    Raises:
        CodecError: there is none of that name, the vector is not finite and the codec cannot say so, it fails, or what
            it returns are no bytes.
    """
    found = codec(name)
    if not found.exact and not np.isfinite(vector).all():
        wrong = int(np.count_nonzero(~np.isfinite(vector)))
        raise CodecError(
            f"Codec {name!r} expects finite numbers, got {wrong} of {vector.size} that are NaN or infinite.",
            hint="Only float32 and float16 can carry them.",
        )
    try:
        data = found.encode(vector, seed)
    except (CodecError, MemoryError):
        raise
    except Exception as error:  # a codec may come from outside
        raise CodecError(
            f"Codec {name!r} cannot encode {vector.size} elements: {type(error).__name__}: {first_line(error)}"
        ) from error
    if not isinstance(data, bytes):
        raise CodecError(f"Codec {name!r} expects to encode to bytes, got {type(data).__name__}.")
    return data


def decoded(name: str, data: bytes | memoryview, size: int, seed: int = 0) -> NDArray[np.float32]:
    """The float32 vector of shape ``[size]`` that a codec makes of bytes, possibly read-only, and maybe not finite.

    Args:
        name: the codec's.
        data: of anybody.
        size: elements.
        seed: with which they were encoded.

    Raises:
        CodecError: there is none of that name, it fails, whatever the bytes are, or it returns something else.
    """
    found = codec(name)
    try:
        vector = found.decode(data, size, seed)
    except (CodecError, MemoryError):
        raise
    except Exception as error:  # a codec may come from outside, and the bytes do
        raise CodecError(
            f"Codec {name!r} cannot decode {len(data)} bytes: {type(error).__name__}: {first_line(error)}"
        ) from error
    if not isinstance(vector, np.ndarray) or vector.dtype != np.float32 or vector.shape != (size,):
        got = f"{vector.dtype} of shape {vector.shape}" if isinstance(vector, np.ndarray) else type(vector).__name__
        raise CodecError(f"Codec {name!r} expects to decode to float32 of shape ({size},), got {got}.")
    return vector


def encoded_bytes(name: str, size: int) -> int:
    """Says how many bytes a vector of so many elements takes, whatever they are.

    Raises:
        CodecError: see `encoded`.
    """
    return len(encoded(name, np.zeros(size, np.float32)))


@lru_cache(maxsize=64)
def _made(name: str) -> Codec | None:
    """The codec that a spelling makes; None: it is a name, if anything.

    Raises:
        CodecError: it is half a spelling.
    """
    kind, dash, rest = name.partition("-")
    if kind == _TERNARY and dash:
        return ternary_codec(name, _fraction(name, rest))
    if kind != _SUBSET:
        return None
    written, plus, inner = rest.partition("+")
    if not plus:
        raise CodecError(
            f"Codec {name!r:.80} expects the codec of what is drawn behind a +.", hint="Write rand-0.25+drive."
        )
    found = CODECS.get(inner)
    if found.memory:
        raise CodecError(
            f"Codec {name!r:.80} expects a codec without a memory behind the +: what is drawn differs every time."
        )
    return subset_codec(name, _fraction(name, written), found)


def _fraction(name: str, written: str) -> Fraction:
    if not _FRACTION.fullmatch(written):
        raise CodecError(
            f"Codec {name!r:.80} expects a fraction between 0 and 1 with at most six decimals, got {written!r:.40}.",
            hint="Write it like 0.25.",
        )
    return Fraction(written)


def _without_fraction(part: str) -> str:
    kind, dash, _ = part.partition("-")
    return kind if dash and kind in (_SUBSET, _TERNARY) else part
