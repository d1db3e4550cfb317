"""Named sections: vectors of floats, vectors of integers modulo a number, and plain bytes, each with its digest."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgefl.codecs import codec, decoded, encoded
from edgefl.errors import CodecError, HashMismatchError
from edgefl.hashing import sha256
from edgefl.wire.framing import Budget, open_enum
from edgefl.wire.generated import messages_generated as wire
from edgefl.wire.vocabulary import Elements
from edgefl.wire.words import check_codec, check_hash, check_name

__all__ = ["BYTES", "MODULAR", "Section", "read_section", "write_section"]

MODULAR = "modular"
"""The codec of integers: each in as few whole bytes as ``modulus - 1`` takes, little-endian."""
BYTES = "bytes"
"""The codec of bytes: as they are."""

_PAYLOAD_SLOT = 14
"""The payload's slot in the table Section: FlatBuffers' Python reader would copy it byte by byte."""


@dataclass(frozen=True, eq=False)
class Section:
    """A named part of a message, still as its codec wrote it.

    Attributes:
        name: of an outcome ``delta``, ``control``, ``gradient`` (weight section), ``statistics`` (statistic section), …
        codec: name of the codec.
        length: elements after decoding.
        payload: the codec's bytes; a view into the message when it was decoded.
        announced: the payload's SHA-256 as a message says it; None: it was made here, and nothing can differ.
        elements: what it consists of; an unknown number is kept as an int.
        modulus: of integers; else 0.
        seed: of whatever the codec drew; 0 where it draws nothing.
    """

    name: str
    codec: str
    length: int
    payload: bytes | memoryview
    announced: str | None = None
    elements: Elements | int = Elements.FLOATS
    modulus: int = 0
    seed: int = 0

    @classmethod
    def of(cls, name: str, vector: NDArray[np.float32], codec_name: str, seed: int = 0) -> Section:
        """Writes a float32 vector of shape ``[n]`` with a codec.

        Args:
            name: the section's.
            vector: float32 ``[n]``.
            codec_name: the codec's.
            seed: of whatever it draws, from 0 to 2⁶⁴ - 1.

        Raises:
            CodecError: the codec is unknown or fails, or cannot write what is not finite.
        """
        drawn = 0 if codec(codec_name).exact else seed
        payload = encoded(codec_name, vector, drawn)
        return cls(name, codec_name, vector.size, payload, seed=drawn)

    @classmethod
    def of_integers(cls, name: str, vector: NDArray[np.uint64], modulus: int) -> Section:
        """Writes whole numbers from 0 to ``modulus - 1``, uint64 of shape ``[n]``.

        Raises:
            CodecError: one of them is larger, or the modulus is not from 2 to 2⁶⁴ - 1.
        """
        width = _width(name, modulus)
        numbers = np.ascontiguousarray(vector, "<u8")
        if numbers.size and int(numbers.max()) >= modulus:
            raise CodecError(f"Section {name!r} expects integers below {modulus}, got {int(numbers.max())}.")
        payload = numbers.view(np.uint8).reshape(-1, 8)[:, :width].tobytes()
        return cls(name, MODULAR, numbers.size, payload, elements=Elements.INTEGERS, modulus=modulus)

    @classmethod
    def of_bytes(cls, name: str, payload: bytes) -> Section:
        """Takes bytes as they are."""
        return cls(name, BYTES, len(payload), payload, elements=Elements.BYTES)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the payload, as the message says it; of a section made here it is computed when it is wanted.

        It costs half as much as a short training of the same vector, and a simulation sends no messages.
        """
        return sha256(self.payload) if self.announced is None else self.announced

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Section)
            and (self.name, self.codec, self.seed, self.length, self.digest, self.elements, self.modulus)
            == (other.name, other.codec, other.seed, other.length, other.digest, other.elements, other.modulus)
            and bytes(self.payload) == bytes(other.payload)
        )

    def vector(self) -> NDArray[np.float32]:
        """Decodes floats: float32 of shape ``[length]``, possibly read-only.

        Raises:
            HashMismatchError: the payload is not what the digest says.
            CodecError: it holds something else, the codec is unknown or fails, or the payload is not of this length.
        """
        self._check(Elements.FLOATS)
        return decoded(self.codec, self.payload, self.length, self.seed)

    def integers(self) -> NDArray[np.uint64]:
        """Decodes integers: uint64 of shape ``[length]``, each below the modulus.

        Raises:
            HashMismatchError: the payload is not what the digest says.
            CodecError: it holds something else, or what is not below the modulus, or is not of this length.
        """
        self._check(Elements.INTEGERS, MODULAR)
        width = _width(self.name, self.modulus)
        if len(self.payload) != self.length * width:
            raise CodecError(
                f"Section {self.name!r} expects {self.length * width} bytes for {self.length} integers, "
                f"got {len(self.payload)}."
            )
        wide = np.zeros((self.length, 8), np.uint8)
        wide[:, :width] = np.frombuffer(self.payload, np.uint8).reshape(self.length, width)
        numbers = wide.view("<u8").ravel().astype(np.uint64, copy=False)
        if numbers.size and int(numbers.max()) >= self.modulus:
            raise CodecError(f"Section {self.name!r} expects integers below {self.modulus}, got {int(numbers.max())}.")
        return numbers

    def content(self) -> bytes:
        """The bytes of a section of bytes.

        Raises:
            HashMismatchError: the payload is not what the digest says.
            CodecError: it holds something else, or is not of this length.
        """
        self._check(Elements.BYTES, BYTES)
        if len(self.payload) != self.length:
            raise CodecError(f"Section {self.name!r} expects {self.length} bytes, got {len(self.payload)}.")
        return bytes(self.payload)

    def _check(self, elements: Elements, codec_name: str | None = None) -> None:
        if self.elements != elements or codec_name not in (None, self.codec):
            raise CodecError(
                f"Section {self.name!r} expects {elements.name.lower()}, got {_named(self.elements)} in the codec "
                f"{self.codec!r}."
            )
        if self.announced is not None and (actual := sha256(self.payload)) != self.announced:
            raise HashMismatchError(
                f"Section {self.name!r} should have digest {self.announced[:12]}…, got {actual[:12]}…."
            )


def write_section(builder: Any, section: Section) -> int:
    """Writes the table and returns where it lies."""
    payload_at = builder.CreateByteVector(bytes(section.payload))
    name_at = builder.CreateString(section.name)
    codec_at = builder.CreateString(section.codec)
    digest_at = builder.CreateString(section.digest)
    wire.SectionStart(builder)
    wire.SectionAddName(builder, name_at)
    wire.SectionAddElements(builder, int(section.elements))
    wire.SectionAddCodec(builder, codec_at)
    wire.SectionAddLength(builder, section.length)
    wire.SectionAddModulus(builder, section.modulus)
    wire.SectionAddPayload(builder, payload_at)
    wire.SectionAddDigest(builder, digest_at)
    if section.seed:
        wire.SectionAddSeed(builder, section.seed)
    return int(wire.SectionEnd(builder))


def read_section(entry: Any, data: bytes | memoryview, budget: Budget) -> Section:
    """Reads the table; the payload is a view into ``data``.

    Args:
        entry: the table.
        data: the message.
        budget: of the message.
    """
    field_at = entry._tab.Offset(_PAYLOAD_SLOT)
    start, length = entry._tab.Vector(field_at), entry._tab.VectorLen(field_at)
    if not field_at or start + length > len(data):
        raise ValueError("a payload reaches beyond the end")
    budget.spend(length)
    elements, modulus = open_enum(Elements, entry.Elements()), entry.Modulus()
    fits = modulus >= 2 if elements == Elements.INTEGERS else modulus == 0
    if isinstance(elements, Elements) and not fits:
        raise ValueError(f"{elements.name.lower()} with the modulus {modulus}")
    return Section(
        name=check_name(budget.text(entry.Name()), "a section"),
        codec=check_codec(budget.text(entry.Codec()), "a codec"),
        length=entry.Length(),
        payload=memoryview(data)[start : start + length],
        announced=check_hash(budget.text(entry.Digest()), "a digest"),
        elements=elements,
        modulus=modulus,
        seed=entry.Seed(),
    )


def _width(name: str, modulus: int) -> int:
    """Bytes of an integer."""
    if not 2 <= modulus < 1 << 64:
        raise CodecError(f"Section {name!r} expects a modulus from 2 to 2**64 - 1, got {modulus}.")
    return ((modulus - 1).bit_length() + 7) // 8


def _named(elements: Elements | int) -> str:
    return elements.name.lower() if isinstance(elements, Elements) else f"elements of kind {elements}"
