"""Codecs by name: each writes a vector of float32 as bytes. Others come from entry points ``edgefl.codecs``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgefl.errors import CodecError, first_line
from edgefl.plugins import Registry

__all__ = ["CODECS", "Codec", "codec", "codec_names", "decoded", "encoded", "register"]


@dataclass(frozen=True)
class Codec:
    """A way to write a vector.

    Attributes:
        name: what sections and tasks call it.
        encode: float32 vector of shape ``[n]`` to bytes.
        decode: bytes and ``n`` to a float32 vector of shape ``[n]``, without copying where possible (read-only then).
            Raises `CodecError` when the bytes are not those of ``n`` elements.
    """

    name: str
    encode: Callable[[NDArray[np.float32]], bytes]
    decode: Callable[[bytes | memoryview, int], NDArray[np.float32]]


def _check(name: str, entry: object) -> None:
    if not isinstance(entry, Codec) or entry.name != name:
        raise CodecError(f"it is no Codec of the name {name!r}.")


CODECS: Registry[Codec] = Registry("codec", "edgefl.codecs", check=_check, error=CodecError)
"""All codecs; a device and its server must both have the one that a run uses."""


def register(new: Codec) -> Codec:
    """Adds a codec; its name must be free.

    Raises:
        CodecError: it is not.
    """
    return CODECS.register(new.name)(new)


def codec(name: str) -> Codec:
    """The codec of that name.

    Raises:
        CodecError: there is none.
    """
    return CODECS.get(name)


def encoded(name: str, vector: NDArray[np.float32]) -> bytes:
    """Encodes a vector of shape ``[n]`` with a codec.

    Raises:
        CodecError: there is none of that name, it fails, or what it returns are no bytes.
    """
    try:
        data = codec(name).encode(vector)
    except (CodecError, MemoryError):
        raise
    except Exception as error:  # a codec may come from outside
        raise CodecError(
            f"Codec {name!r} cannot encode {vector.size} elements: {type(error).__name__}: {first_line(error)}"
        ) from error
    if not isinstance(data, bytes):
        raise CodecError(f"Codec {name!r} expects to encode to bytes, got {type(data).__name__}.")
    return data


def decoded(name: str, data: bytes | memoryview, size: int) -> NDArray[np.float32]:
    """The float32 vector of shape ``[size]`` that a codec makes of bytes, possibly read-only.

    Raises:
        CodecError: there is none of that name, it fails, whatever the bytes are, or it returns something else.
    """
    try:
        vector = codec(name).decode(data, size)
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


def codec_names() -> tuple[str, ...]:
    """All names, sorted."""
    return tuple(sorted(CODECS.names()))


def _fixed_width(name: str, dtype: str) -> Codec:
    """Little-endian IEEE 754 of a fixed width, rounding to nearest even."""
    wire = np.dtype(dtype)
    largest = float(np.finfo(wire).max)

    def encode(vector: NDArray[np.float32]) -> bytes:
        if wire.itemsize == vector.itemsize:
            return vector.astype(wire, copy=False).tobytes()
        # A finite value beyond the type's range must not become infinite on the way.
        finite = np.where(np.isfinite(vector), np.clip(vector, -largest, largest), vector)
        return finite.astype(wire).tobytes()

    def decode(data: bytes | memoryview, size: int) -> NDArray[np.float32]:
        if len(data) != size * wire.itemsize:
            raise CodecError(
                f"Codec {name!r} expects {size * wire.itemsize} bytes for {size} elements, got {len(data)}."
            )
        return np.frombuffer(data, wire).astype(np.float32, copy=False)

    return Codec(name, encode, decode)


register(_fixed_width("float16", "<f2"))
register(_fixed_width("float32", "<f4"))
