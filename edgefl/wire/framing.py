"""The frame that all messages have: identifier, protocol version, and reading bytes that cannot be trusted."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import Any, TypeVar

import flatbuffers

from edgefl.errors import FormatVersionError, MessageError
from edgefl.wire.generated import messages_generated as wire

__all__ = [
    "PROTOCOL_VERSION",
    "Budget",
    "Reading",
    "counted",
    "finish",
    "new_builder",
    "open_enum",
    "text",
    "vector_of_tables",
]

PROTOCOL_VERSION = 2
_IDENTIFIER = b"EFLM"
_READER = {"Task": "device", "Outcome": "server"}
_WRITER = {"Task": "server", "Outcome": "device"}
_E = TypeVar("_E", bound=IntEnum)


class Reading:
    """Turns whatever the FlatBuffers reader raises on damaged bytes into one clear error."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> Reading:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(
            error,
            (struct.error, IndexError, ValueError, TypeError, AttributeError, OverflowError, MemoryError),
        ):
            raise MessageError(
                f"Expected a message of type {self.name}, got bytes that do not parse: {error}."
            ) from error

    def body(self, data: bytes | memoryview, kind: int, table_type: Any) -> Any:
        """The table inside a message, if it is one of this kind and of this protocol version."""
        if len(data) < 8 or bytes(data[4:8]) != _IDENTIFIER:
            raise MessageError(
                f"Expected a message of type {self.name} with the identifier 'EFLM' at byte 4, "
                f"got {len(data)} bytes without it."
            )
        message = wire.Message.GetRootAs(data, 0)
        version = message.ProtocolVersion()
        if version > PROTOCOL_VERSION:
            raise FormatVersionError(
                f"The message needs protocol version {version}, this edgefl speaks {PROTOCOL_VERSION}.",
                hint=f"Update edgefl on the {_READER[self.name]}.",
            )
        if 1 <= version < PROTOCOL_VERSION:
            raise FormatVersionError(
                f"The message is of protocol version {version}, this edgefl speaks {PROTOCOL_VERSION}.",
                hint=f"Update edgefl on the {_WRITER[self.name]}.",
            )
        if version < 1 or message.BodyType() != kind or message.Body() is None:
            raise MessageError(f"Expected a message of type {self.name}, got another one.")
        table = table_type()
        union = message.Body()
        table.Init(union.Bytes, union.Pos)
        return table


def new_builder(size: int = 1024) -> Any:
    """A builder that writes every scalar."""
    builder = flatbuffers.Builder(size)
    # Without this a field that happens to equal its default is left out and the length tells so.
    builder.ForceDefaults(True)
    return builder


def finish(builder: Any, body: int, kind: int) -> bytes:
    """Wraps a body into a message of this protocol version."""
    wire.MessageStart(builder)
    wire.MessageAddProtocolVersion(builder, PROTOCOL_VERSION)
    wire.MessageAddBodyType(builder, kind)
    wire.MessageAddBody(builder, body)
    builder.Finish(wire.MessageEnd(builder), file_identifier=_IDENTIFIER)
    return bytes(memoryview(builder.Bytes)[builder.Head() :])  # `Output` would copy once more


def vector_of_tables(builder: Any, start: Any, offsets: list[int]) -> int:
    """Writes a vector of tables that were written before."""
    start(builder, len(offsets))
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return int(builder.EndVector())


def counted(length: int, data: bytes | memoryview) -> Iterator[int]:
    """Indices of a vector; a damaged length must not make a reader loop for ever."""
    if length * 4 > len(data):
        raise ValueError("a vector reaches beyond the end")
    return iter(range(length))


def text(value: bytes | None) -> str:
    """A required text."""
    if value is None:
        raise ValueError("a required text is missing")
    return value.decode()


class Budget:
    """Bounds how much may be read out of one message in all.

    Offsets of a hostile message may all lead to one large text or vector, so that a few kilobytes would unfold into
    gigabytes. The parts of an honest message do not overlap, but for short texts that a writer may share.

    Args:
        data: the message.
    """

    def __init__(self, data: bytes | memoryview) -> None:
        self._left = 2 * len(data) + 4096

    def spend(self, size: int) -> None:
        """Counts bytes that are about to be read."""
        self._left -= size
        if self._left < 0:
            raise ValueError("its parts overlap")

    def text(self, value: bytes | None) -> str:
        """Reads a required text, and counts it."""
        self.spend(len(value or b""))
        return text(value)


def open_enum(kind: type[_E], value: int) -> _E | int:
    """A member of the list, or the number itself when it is not in the list yet."""
    try:
        return kind(value)
    except ValueError:
        return value
