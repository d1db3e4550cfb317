"""The interface of codecs, and their registry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgefl.errors import CodecError
from edgefl.plugins import Registry

__all__ = ["CODECS", "UPDATES", "Codec", "expect_bytes", "register"]

UPDATES = ("delta", "gradient")
"""The sections of which a server takes a mean over devices, in which errors of single devices even out."""


@dataclass(frozen=True)
class Codec:
    """A way to write a vector.

    Both functions are pure: equal arguments give equal bytes, and equal numbers to the last bit, on every machine.
    Whatever they draw comes from the seed, which is not part of the bytes: both sides know it.

    Attributes:
        name: what sections and tasks call it.
        encode: float32 vector of shape ``[n]``, finite unless the codec is ``exact``, and a seed from 0 to 2⁶⁴ - 1 to
            bytes. How many bytes is a function of ``n`` alone, so that a length tells nothing about the data.
        decode: bytes, ``n`` and the seed to a float32 vector of shape ``[n]``, without copying where possible
            (read-only then). Raises `CodecError` when the bytes are not those of ``n`` elements.
        unbiased: the mean of what is decoded, over seeds, is the vector.
        memory: what an encoding leaves out has to be added to the next vector (error feedback), so that whoever
            encodes has to remember it from one task of a run to the next.
        exact: it carries every number as it is or rounded alone, also NaN and infinity.
        contractive: what is decoded is off by less than the vector's norm, so that what is left out can be added to the
            next vector over and over without growing.
        sparse: of each vector most elements come out as 0, others for each device: a mean over devices means something,
            a median of single elements does not.
        sections: the sections of an outcome that it suits; all others are written as float32. Empty: all.
    """

    name: str
    encode: Callable[[NDArray[np.float32], int], bytes]
    decode: Callable[[bytes | memoryview, int, int], NDArray[np.float32]]
    unbiased: bool = False
    memory: bool = False
    exact: bool = False
    contractive: bool = False
    sparse: bool = False
    sections: tuple[str, ...] = UPDATES

    def suits(self, section: str) -> bool:
        """Whether a section of an outcome may be written with it."""
        return not self.sections or section in self.sections


def _check(name: str, entry: object) -> None:
    if not isinstance(entry, Codec) or entry.name != name:
        raise CodecError(f"it is no Codec of the name {name!r}.")


CODECS: Registry[Codec] = Registry("codec", "edgefl.codecs", check=_check, error=CodecError)
"""All codecs but those that a spelling makes; a device and its server must both have the one that a run uses."""


def register(new: Codec) -> Codec:
    """Adds a codec; its name must be free.

    Raises:
        CodecError: it is not.
    """
    return CODECS.register(new.name)(new)


def expect_bytes(name: str, data: bytes | memoryview, wanted: int, size: int) -> None:
    """Whether there are as many bytes as so many elements take.

    Raises:
        CodecError: there are not.
    """
    if len(data) != wanted:
        raise CodecError(f"Codec {name!r} expects {wanted} bytes for {size} elements, got {len(data)}.")
