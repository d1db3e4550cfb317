"""Differences between two versions of the weights: what a device that holds the one needs to have the other, exactly.

The bytes of one: ``EFLD``, then little-endian a byte 1 (the format), the seed (8 bytes), the elements of the weight
section and of the statistic section (4 each), a byte with the length of the codec's name and the name, the length of
the payload (4) and the payload, and the new statistics as float32. Several that follow each other have their length
(4) in front of each.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgefl.codecs import decoded, encoded
from edgefl.errors import CodecError, MessageError
from edgefl.wire.words import check_codec

__all__ = ["LONGEST_CHAIN", "Difference", "join", "split"]

LONGEST_CHAIN = 64
"""The most differences that are sent together: a device that was away for longer fetches the weights."""
_HEAD = struct.Struct("<4sBQIIB")
_LENGTH = struct.Struct("<I")
_MAGIC, _FORMAT = b"EFLD", 1


@dataclass(frozen=True)
class Difference:
    """A step from one version of the weights to the next.

    Attributes:
        codec: in which the change of the weight section is written.
        seed: of whatever the codec drew.
        payload: its bytes.
        weight_size: elements of the weight section.
        statistics: the new statistic section, as bytes of little-endian float32.
    """

    codec: str
    seed: int
    payload: bytes
    weight_size: int
    statistics: bytes

    @classmethod
    def of(cls, change: NDArray[np.float32], statistics: NDArray[np.float32], codec_name: str, seed: int) -> Difference:
        """Writes a step.

        Args:
            change: of the weight section, float32 ``[weight_size]``.
            statistics: the new ones, float32.
            codec_name: of the change.
            seed: of whatever that codec draws.

        Raises:
            CodecError: the codec is unknown or fails.
        """
        payload = encoded(codec_name, change, seed)
        return cls(codec_name, seed, payload, change.size, statistics.astype("<f4", copy=False).tobytes())

    def applied(self, weights: NDArray[np.float32]) -> NDArray[np.float32]:
        """The next version: float32 of the same shape, to the last bit what everybody else has.

        Args:
            weights: float32 ``[size]``: the weight section, then the statistic section; stays as it is.

        Raises:
            CodecError: the step is of other weights, or its bytes are none of its codec's.
        """
        size = self.weight_size
        if weights.size != size + len(self.statistics) // 4:
            raise CodecError(
                f"A difference expects {size + len(self.statistics) // 4} elements to start from, got {weights.size}."
            )
        found = np.empty(weights.size, np.float32)
        with np.errstate(all="ignore"):  # whoever takes it compares the hash
            np.add(weights[:size], decoded(self.codec, self.payload, size, self.seed), out=found[:size])
        found[size:] = np.frombuffer(self.statistics, "<f4")
        return found

    def encode(self) -> bytes:
        """The bytes."""
        name = self.codec.encode()
        head = _HEAD.pack(_MAGIC, _FORMAT, self.seed, self.weight_size, len(self.statistics) // 4, len(name))
        return b"".join((head, name, _LENGTH.pack(len(self.payload)), self.payload, self.statistics))

    @classmethod
    def decode(cls, data: bytes) -> Difference:
        """Reads bytes.

        Raises:
            MessageError: they are no difference.
        """
        try:
            magic, form, seed, weight_size, statistic_size, length = _HEAD.unpack_from(data)
            name = data[_HEAD.size : _HEAD.size + length].decode("ascii")
            start = _HEAD.size + length + _LENGTH.size
            (size,) = _LENGTH.unpack_from(data, start - _LENGTH.size)
        except (struct.error, UnicodeDecodeError) as error:
            raise MessageError(f"Expected a difference between weights, got {len(data)} other bytes.") from error
        if (magic, form) != (_MAGIC, _FORMAT) or len(data) != start + size + 4 * statistic_size:
            raise MessageError(
                f"Expected a difference between weights of format {_FORMAT}, got {len(data)} other bytes."
            )
        check_codec(name, "a codec")
        return cls(name, seed, data[start : start + size], weight_size, data[start + size :])


def join(differences: Iterable[bytes]) -> bytes:
    """Puts encoded differences, each of which goes on from the one before, into one answer."""
    return b"".join(_LENGTH.pack(len(each)) + each for each in differences)


def split(data: bytes) -> list[Difference]:
    """Reads what `join` made.

    Raises:
        MessageError: it is something else, or more than `LONGEST_CHAIN`.
    """
    found: list[Difference] = []
    at = 0
    while at < len(data):
        start = at + _LENGTH.size
        at = start + int.from_bytes(data[at:start], "little")
        if at > len(data) or len(found) == LONGEST_CHAIN:
            raise MessageError("Expected differences between weights one after the other, got something else.")
        found.append(Difference.decode(data[start:at]))
    return found
