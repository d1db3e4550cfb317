"""Reads a TFLite file into the object form of TensorFlow's schema, several times faster than the generated code does.

That asks a table for each of its fields by several calls of Python. A file has thousands of tensors, ops and buffers:
these are read here by the tables of offsets in front of them, which most of them share, and all else by the generated
code, as are those with a field that hardly any has.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from tensorflow.lite.python import schema_py_generated as schema

from edgefl_converters.flatbuffer.schema_writers import AlignedBuffer

__all__ = ["read_model"]

_U16, _U32, _I32 = (struct.Struct(f"<{kind}").unpack_from for kind in "HIi")
_MOST_FIELDS = 16
_OPTIONS = {
    code: getattr(schema, f"{name}T") for name, code in vars(schema.BuiltinOptions).items() if name.endswith("Options")
}

_TENSOR_RARELY = (6, 9, 10)  # sparsity, variants, an external buffer
_OPERATOR_RARELY = (5, 6, 7, 8, 9, 10, 11, 12)  # custom options, intermediates, what StableHLO has


def read_model(data: bytes) -> Any:
    """The file as a `ModelT` whose buffers are aligned when they are written.

    Args:
        data: the file.
    """
    tables = _Tables(data)
    root = _U32(data, 0)[0]
    reader = _Rest()
    reader.Init(data, root)
    model = schema.ModelT.InitFromObj(reader)
    model.subgraphs = [_subgraph(tables, position) for position in tables.tables(root, 2)]
    model.buffers = [_buffer(tables, position) for position in tables.tables(root, 4)]
    return model


class _Rest(schema.Model):  # type: ignore[misc]
    """The generated reader, without what is read here."""

    def SubgraphsIsNone(self) -> bool:  # noqa: N802 - the generated name
        return True

    def BuffersIsNone(self) -> bool:  # noqa: N802 - the generated name
        return True


class _Tables:
    """Finds the fields of tables.

    Args:
        data: the file.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        self._layouts: dict[int, Sequence[int]] = {}

    def fields(self, position: int) -> Sequence[int]:
        """The offsets of a table's fields, counted from the table; 0 for one that it does not have."""
        layout = position - _I32(self.data, position)[0]
        if layout not in self._layouts:
            count = _U16(self.data, layout)[0] // 2 - 2
            offsets = struct.unpack_from(f"<{count}H", self.data, layout + 4)
            self._layouts[layout] = (*offsets, *(0 for _ in range(_MOST_FIELDS - count)))
        return self._layouts[layout]

    def follow(self, place: int) -> int:
        """The position of what a place in the file refers to."""
        return int(place + _U32(self.data, place)[0])

    def vector(self, position: int, offset: int, kind: str = "<i4") -> Any:
        """A vector of numbers, a view of the file; None where a table has no such field."""
        if not offset:
            return None
        start = self.follow(position + offset)
        return np.frombuffer(self.data, kind, _U32(self.data, start)[0], start + 4)

    def text(self, position: int, offset: int) -> bytes | None:
        """A text; None where a table has no such field."""
        if not offset:
            return None
        start = self.follow(position + offset)
        return self.data[start + 4 : start + 4 + _U32(self.data, start)[0]]

    def number(self, position: int, offset: int) -> int:
        """An unsigned number of 32 bits."""
        return int(_U32(self.data, position + offset)[0]) if offset else 0

    def byte(self, position: int, offset: int) -> int:
        """A number of a byte that is not negative."""
        return self.data[position + offset] if offset else 0

    def tables(self, position: int, field: int) -> Iterator[int]:
        """The positions of the tables in a field that is a vector of them."""
        offset = self.fields(position)[field]
        if offset:
            start = self.follow(position + offset)
            for place in range(start + 4, start + 4 + 4 * _U32(self.data, start)[0], 4):
                yield self.follow(place)


def _subgraph(tables: _Tables, position: int) -> Any:
    fields = tables.fields(position)
    subgraph = schema.SubGraphT()
    subgraph.tensors = [_tensor(tables, each) for each in tables.tables(position, 0)]
    subgraph.inputs, subgraph.outputs = (tables.vector(position, fields[index]) for index in (1, 2))
    subgraph.operators = [_operator(tables, each) for each in tables.tables(position, 3)]
    subgraph.name = tables.text(position, fields[4])
    subgraph.debugMetadataIndex = _signed(tables, position, fields[5])
    return subgraph


def _tensor(tables: _Tables, position: int) -> Any:
    fields = tables.fields(position)
    if _has_any(fields, _TENSOR_RARELY):
        return schema.TensorT.InitFromBuf(tables.data, position)
    tensor = schema.TensorT()
    tensor.shape = tables.vector(position, fields[0])
    tensor.type = tables.byte(position, fields[1])
    tensor.buffer = tables.number(position, fields[2])
    tensor.name = tables.text(position, fields[3])
    if fields[4]:
        quantization = tables.follow(position + fields[4])
        plain = not any(tables.fields(quantization))
        made: Callable[..., Any] = schema.QuantizationParametersT
        tensor.quantization = made() if plain else made.InitFromBuf(tables.data, quantization)  # type: ignore[attr-defined]
    tensor.isVariable = bool(tables.byte(position, fields[5]))
    tensor.shapeSignature = tables.vector(position, fields[7])
    tensor.hasRank = bool(tables.byte(position, fields[8]))
    return tensor


def _operator(tables: _Tables, position: int) -> Any:
    fields = tables.fields(position)
    if _has_any(fields, _OPERATOR_RARELY):
        return schema.OperatorT.InitFromBuf(tables.data, position)
    operator = schema.OperatorT()
    operator.opcodeIndex = tables.number(position, fields[0])
    operator.inputs, operator.outputs = (tables.vector(position, fields[index]) for index in (1, 2))
    operator.builtinOptionsType = tables.byte(position, fields[3])
    if fields[4] and operator.builtinOptionsType in _OPTIONS:
        options = tables.follow(position + fields[4])
        operator.builtinOptions = _OPTIONS[operator.builtinOptionsType].InitFromBuf(tables.data, options)
    operator.debugMetadataIndex = _signed(tables, position, fields[13])
    return operator


def _buffer(tables: _Tables, position: int) -> Any:
    fields = tables.fields(position)
    buffer = schema.BufferT.InitFromBuf(tables.data, position) if fields[1] or fields[2] else schema.BufferT()
    buffer.data = tables.vector(position, fields[0], "u1")
    buffer.__class__ = AlignedBuffer
    return buffer


def _signed(tables: _Tables, position: int, offset: int) -> int:
    """An index that is -1 where there is none."""
    return int(_I32(tables.data, position + offset)[0]) if offset else -1


def _has_any(fields: Sequence[int], indices: Sequence[int]) -> bool:
    return any(fields[index] for index in indices)
