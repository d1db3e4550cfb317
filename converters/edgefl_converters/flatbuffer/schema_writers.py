"""Objects of TensorFlow's generated schema that write themselves as runtimes and files want it."""

from __future__ import annotations

import struct
from typing import Any

import flatbuffers
import numpy as np
from numpy.typing import NDArray
from tensorflow.lite.python import schema_py_generated as schema

__all__ = ["AlignedBuffer", "SharedQuantization", "file_of"]

_ALIGNMENT = 16
_LARGE = 1 << 20
"""Bytes of a buffer from which it is written behind all else, by a single copy."""


class _Builder(flatbuffers.Builder):  # type: ignore[misc]
    """Builds a file without its large buffers: it grows by copying all that it has."""

    def __init__(self) -> None:
        super().__init__(1 << 20)
        self.large: list[tuple[int, NDArray[np.uint8]]] = []
        """The place of the reference to each, counted from the end of what is built, and what it holds."""


def file_of(model: Any) -> bytes:
    """The file of a `ModelT`."""
    builder = _Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    head = bytearray(builder.Output())
    size = length = len(head)
    pieces: list[Any] = [head]
    for place, data in builder.large:
        before = -(size + 4) % _ALIGNMENT
        # A reference counts from where it lies itself; a vector begins with its length.
        struct.pack_into("<I", head, length - place, size + before - (length - place))
        pieces += [bytes(before), struct.pack("<I", data.size), data]
        size += before + 4 + data.size
    return b"".join(pieces)


class AlignedBuffer(schema.BufferT):  # type: ignore[misc]
    """The generated code aligns data to one byte; runtimes map it and expect 16."""

    def Pack(self, builder: Any) -> Any:  # noqa: N802 - the generated name
        """Writes it with a builder and returns where it lies."""
        data = None
        large = self.data is not None and len(self.data) >= _LARGE and isinstance(builder, _Builder)
        if large:
            builder.StartVector(1, 0, _ALIGNMENT)
            data = builder.EndVector()  # in place of what is referred to later
        elif self.data is not None and len(self.data):
            raw = np.asarray(self.data, np.uint8).tobytes()
            builder.StartVector(1, len(raw), _ALIGNMENT)
            builder.head -= len(raw)
            builder.Bytes[builder.head : builder.head + len(raw)] = raw
            data = builder.EndVector()
        schema.BufferStart(builder)
        if data is not None:
            schema.BufferAddData(builder, data)
        if large:
            builder.large.append((builder.Offset(), np.ascontiguousarray(self.data, np.uint8)))
        return schema.BufferEnd(builder)


class SharedQuantization(schema.QuantizationParametersT):  # type: ignore[misc]
    """The generated code writes what several tensors refer to once for each."""

    _written: tuple[Any, Any] | None = None

    def Pack(self, builder: Any) -> Any:  # noqa: N802 - the generated name
        """Writes it with a builder, at the first call with that, and returns where it lies."""
        if self._written is None or self._written[0] is not builder:
            self._written = builder, super().Pack(builder)
        return self._written[1]
