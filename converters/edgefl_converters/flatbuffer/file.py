"""Surgery on a converted TFLite file, in the object form that TensorFlow's schema generates.

What is done to it are passes, see `pipeline`; here is what they have in common, and how it becomes bytes again. Equal
models give equal bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tensorflow.lite.python import schema_py_generated as schema

from edgefl_converters.flatbuffer.object_form import append, text_of
from edgefl_converters.flatbuffer.reading import read_model
from edgefl_converters.flatbuffer.schema_writers import AlignedBuffer, file_of

__all__ = ["Emitted", "FlatModel"]


class Emitted(NamedTuple):
    """An op of the file: its builtin name, its version, and the name of its first output."""

    op: str
    version: int
    output: str


class FlatModel:
    """A TFLite file as objects.

    Args:
        data: the file.
    """

    def __init__(self, data: bytes) -> None:
        self._model = read_model(data)

    @property
    def model(self) -> Any:
        """The file in the object form of the schema, `ModelT`."""
        return self._model

    @property
    def subgraphs(self) -> list[Any]:
        """Its subgraphs in object form."""
        subgraphs: list[Any] = self._model.subgraphs
        return subgraphs

    def emitted(self) -> Iterator[Emitted]:
        """Every op, before names are dropped."""
        names = {value: name for name, value in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
        for subgraph in self._model.subgraphs:
            for operator in subgraph.operators:
                outputs = operator.outputs
                output = text_of(subgraph.tensors[int(outputs[0])].name or "") if len(outputs) else ""
                version = int(self._model.operatorCodes[operator.opcodeIndex].version)
                yield Emitted(names[self.builtin(operator)], version, output)

    def set_metadata(self, name: str, data: bytes) -> None:
        """Adds a metadata entry."""
        entry = schema.MetadataT()
        entry.name, entry.buffer = name, self.add_buffer(data)
        self._model.metadata = [*(self._model.metadata or []), entry]

    def drop_unused(self) -> dict[int, int]:
        """Removes tensors and buffers that nothing refers to.

        Returns:
            Old to new buffer indices.
        """
        for subgraph in self._model.subgraphs:
            self._drop_unused_tensors(subgraph)
        used = {0}
        for subgraph in self._model.subgraphs:
            used |= {tensor.buffer for tensor in subgraph.tensors}
        used |= {entry.buffer for entry in self._model.metadata or []}
        moved = {old: new for new, old in enumerate(sorted(used))}
        self._model.buffers = [self._model.buffers[old] for old in sorted(used)]
        for subgraph in self._model.subgraphs:
            for tensor in subgraph.tensors:
                tensor.buffer = moved[tensor.buffer]
        for entry in self._model.metadata or []:
            entry.buffer = moved[entry.buffer]
        self._model.metadataBuffer = None
        return moved

    def drop_unused_codes(self) -> None:
        """Removes operator codes that no op has any more."""
        codes = self._model.operatorCodes
        used = sorted({operator.opcodeIndex for subgraph in self.subgraphs for operator in subgraph.operators})
        moved = {old: new for new, old in enumerate(used)}
        self._model.operatorCodes = [codes[old] for old in used]
        for subgraph in self.subgraphs:
            for operator in subgraph.operators:
                operator.opcodeIndex = moved[operator.opcodeIndex]

    def pack(self) -> bytes:
        """The file."""
        return file_of(self._model)

    # Details.

    def _drop_unused_tensors(self, subgraph: Any) -> None:
        used = set(map(int, subgraph.inputs)) | set(map(int, subgraph.outputs))
        for operator in subgraph.operators:
            for indices in (operator.inputs, operator.outputs, operator.intermediates):
                used |= {int(index) for index in (() if indices is None else indices) if index >= 0}
        for definition in self._model.signatureDefs:
            if self._model.subgraphs[definition.subgraphIndex] is subgraph:
                used |= {each.tensorIndex for each in (*(definition.inputs or ()), *(definition.outputs or ()))}
        moved = {old: new for new, old in enumerate(sorted(used))} | {-1: -1}
        subgraph.tensors = [subgraph.tensors[old] for old in sorted(used)]
        subgraph.inputs = [moved[int(each)] for each in subgraph.inputs]
        subgraph.outputs = [moved[int(each)] for each in subgraph.outputs]
        for operator in subgraph.operators:
            for name in ("inputs", "outputs", "intermediates"):
                indices = getattr(operator, name)
                if indices is not None:
                    setattr(operator, name, [moved[int(each)] for each in indices])
        for definition in self._model.signatureDefs:
            if self._model.subgraphs[definition.subgraphIndex] is subgraph:
                for each in (*(definition.inputs or ()), *(definition.outputs or ())):
                    each.tensorIndex = moved[each.tensorIndex]

    def initialiser_subgraphs(self) -> Iterator[tuple[int, Any]]:
        """The subgraphs that give variables their first values, with their indices."""
        seen: set[int] = set()
        for subgraph in self._model.subgraphs:
            for operator in subgraph.operators:
                if self.builtin(operator) == schema.BuiltinOperator.CALL_ONCE:
                    index = operator.builtinOptions.initSubgraphIndex
                    if index not in seen:
                        seen.add(index)
                        yield index, self._model.subgraphs[index]

    def integers(self, subgraph: Any, values: Sequence[int]) -> int:
        """Adds an int32 vector to a subgraph and returns its tensor's index."""
        return self.constant(subgraph, schema.TensorType.INT32, [len(values)], np.asarray(values, np.int32).tobytes())

    def constant(self, subgraph: Any, dtype: int, shape: list[int], data: bytes) -> int:
        """Adds a constant to a subgraph and returns its tensor's index."""
        tensor = schema.TensorT()
        tensor.type, tensor.shape, tensor.buffer = dtype, shape, self.add_buffer(data)
        return append(subgraph.tensors, tensor)

    def add_buffer(self, data: bytes | NDArray[Any]) -> int:
        """Adds a buffer and returns its index; it refers to the data."""
        buffer = AlignedBuffer()
        buffer.data = np.frombuffer(data, np.uint8)
        return append(self._model.buffers, buffer)

    def operator_code(self, builtin: int, version: int = 1) -> int:
        """The index of a builtin operator among the file's; it is added if it is not there."""
        for index, code in enumerate(self._model.operatorCodes):
            if code.builtinCode == builtin and code.version == version:
                return index
        code = schema.OperatorCodeT()
        # The old field holds what fits into a byte, for readers from before there were more.
        code.builtinCode, code.deprecatedBuiltinCode, code.version = builtin, min(builtin, 127), version
        return append(self._model.operatorCodes, code)

    def builtin(self, operator: Any) -> int:
        """The builtin operator of an op."""
        code = self._model.operatorCodes[operator.opcodeIndex]
        return max(int(code.builtinCode), int(code.deprecatedBuiltinCode))
