"""Surgery on a converted TFLite file, in the object form that TensorFlow's schema generates.

Each parameter gets a buffer of its own with its initial value, constants that are one repeated number are computed
instead of stored, names that nobody reads go, and the manifest comes in. Equal models give equal bytes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import flatbuffers
import numpy as np
from numpy.typing import NDArray
from tensorflow.lite.python import schema_py_generated as schema

from edgefl.errors import UnsupportedModelError
from edgefl_converters.flatbuffer.frozen_storage import StoredConstant, store
from edgefl_converters.flatbuffer.passes.flat_products import flatten_products
from edgefl_converters.flatbuffer.passes.rematerialising import compute_again
from edgefl_converters.flatbuffer.passes.scheduling import METADATA_NAME as CONTROL_DEPENDENCIES
from edgefl_converters.flatbuffer.passes.scheduling import as_late_as_possible, control_edges, serialized
from edgefl_converters.flatbuffer.passes.transposed_kernels import Making, transpose_kernels
from edgefl_converters.flatbuffer.passes.variable_reads import read_at_each_use
from edgefl_converters.flatbuffer.schema_writers import AlignedBuffer, SharedQuantization

__all__ = ["Emitted", "FlatModel"]

_SUBGRAPH_FIELDS = [f"{role}SubgraphIndex" for role in ("init", "then", "else", "cond", "body")]
_FILL_FROM_BYTES = 512
"""Below this a constant is smaller than the op that would compute it."""


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
        self._model = schema.ModelT.InitFromPackedBuf(data, 0)
        for buffer in self._model.buffers:
            buffer.__class__ = AlignedBuffer
        self._owned: set[int] = set()
        self._quantizations: dict[tuple[int, bytes], SharedQuantization] = {}

    def give_own_buffers(self, values: Mapping[str, NDArray[Any]]) -> dict[str, int]:
        """Lets each variable start from a buffer that nothing else uses.

        Args:
            values: shared names of variables to their initial values.

        Returns:
            Shared name to the index of the buffer.

        Raises:
            UnsupportedModelError: the file initialises a variable in no known way.
        """
        buffers: dict[str, int] = {}
        for subgraph, operator, name in self._initialisers():
            if name not in values:
                continue
            tensor = copy.copy(subgraph.tensors[operator.inputs[1]])
            tensor.buffer = self._add_buffer(np.ascontiguousarray(values[name]).tobytes())
            operator.inputs = [operator.inputs[0], _add(subgraph.tensors, tensor)]
            buffers[name] = tensor.buffer
        self._owned |= set(buffers.values())
        missing = sorted(set(values) - set(buffers))
        if missing:
            raise UnsupportedModelError(f"The converted file does not initialise the variables {', '.join(missing)}.")
        return buffers

    def emitted(self) -> Iterator[Emitted]:
        """Every op, before names are dropped."""
        names = {value: name for name, value in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
        for subgraph in self._model.subgraphs:
            for operator in subgraph.operators:
                outputs = operator.outputs
                output = _text(subgraph.tensors[int(outputs[0])].name or "") if len(outputs) else ""
                version = int(self._model.operatorCodes[operator.opcodeIndex].version)
                yield Emitted(names[self._builtin(operator)], version, output)

    def share_equal_buffers(self) -> None:
        """Lets constants with equal content lie in one buffer; parameters keep theirs."""
        first: dict[bytes, int] = {}
        for subgraph in self._model.subgraphs:
            for tensor in subgraph.tensors:
                data = self._model.buffers[tensor.buffer].data
                if tensor.buffer not in self._owned and data is not None and len(data):
                    tensor.buffer = first.setdefault(np.asarray(data, np.uint8).tobytes(), tensor.buffer)

    def store_constants(self, storage: str, frozen: Callable[[str], bool]) -> int:
        """Stores large float32 constants in fewer bytes, before names are dropped; see `frozen_storage`.

        Args:
            storage: of `frozen_storage.FORMATS`.
            frozen: whether the op whose first output has a name was made by a layer with frozen weights.

        Returns:
            How many tensors are stored so.
        """
        initialisers = {index for index, _ in self._initialiser_subgraphs()}
        count = 0
        for index, subgraph in enumerate(self._model.subgraphs):
            if index in initialisers:
                continue
            wanted = {
                int(source)
                for operator in subgraph.operators
                if len(operator.outputs) and frozen(_text(subgraph.tensors[int(operator.outputs[0])].name or ""))
                for source in operator.inputs
                if source >= 0
            }
            restoring = [each for source in sorted(wanted) if (each := self._restore(subgraph, source, storage))]
            subgraph.operators = [*restoring, *subgraph.operators]
            count += len(restoring)
        return count

    def compute_repeated_constants(self, signatures: Iterable[str]) -> None:
        """Computes constants that are assigned and hold one repeated number, in the initialiser and some signatures.

        Args:
            signatures: their keys.
        """
        wanted = set(signatures)
        indices = {index for index, _ in self._initialiser_subgraphs()}
        indices |= {each.subgraphIndex for each in self._model.signatureDefs if _text(each.signatureKey) in wanted}
        for index in sorted(indices):
            subgraph = self._model.subgraphs[index]
            filled: dict[int, int] = {}
            fills: list[Any] = []
            for operator in subgraph.operators:
                if self._builtin(operator) != schema.BuiltinOperator.ASSIGN_VARIABLE:
                    continue
                source = int(operator.inputs[1])
                if source not in filled:
                    fill = self._fill(subgraph, source)
                    if fill is None:
                        continue
                    fills.append(fill)
                    filled[source] = int(fill.outputs[0])
                operator.inputs = [operator.inputs[0], filled[source]]
            subgraph.operators = fills + list(subgraph.operators)

    def separate_outputs(self) -> None:
        """Copies what a branch or loop body returns twice: both runtimes hand a tensor over only once."""
        entries = {each.subgraphIndex for each in self._model.signatureDefs}
        for index, subgraph in enumerate(self._model.subgraphs):
            if index in entries:
                continue
            outputs: list[int] = []
            for output in map(int, subgraph.outputs):
                outputs.append(self._copy_tensor(subgraph, output) if output in outputs else output)
            subgraph.outputs = outputs

    def flatten_products(self) -> None:
        """Makes products of two matrices products of rank 2; see `flat_products`."""
        for subgraph in self._model.subgraphs:
            flatten_products(subgraph, self._builtin, self._constant_shape)

    def make_primary(self, signature: str) -> None:
        """Moves a signature's subgraph to the front: tflite-runtime 2.14 delegates the first subgraph only."""
        index = next(each.subgraphIndex for each in self._model.signatureDefs if _text(each.signatureKey) == signature)
        moved = {0: index, index: 0}
        subgraphs = self._model.subgraphs
        subgraphs[0], subgraphs[index] = subgraphs[index], subgraphs[0]
        for each in self._model.signatureDefs:
            each.subgraphIndex = moved.get(each.subgraphIndex, each.subgraphIndex)
        for subgraph in subgraphs:
            for operator in subgraph.operators:
                for field in _SUBGRAPH_FIELDS:
                    called = getattr(operator.builtinOptions, field, None)
                    if called is not None:
                        setattr(operator.builtinOptions, field, moved.get(called, called))

    def transpose_kernels(self) -> None:
        """Holds kernels of first layers transposed, `train` being the primary one; see `transposed_kernels`."""
        transpose_kernels(self._model.subgraphs, Making(self._builtin, self._operator_code, self._constant_shape))

    def read_variables_at_each_use(self) -> None:
        """Reads a large variable anew for each op that needs it; see `variable_reads`."""
        for subgraph in self._model.subgraphs:
            read_at_each_use(subgraph, self._builtin)

    def schedule(self) -> None:
        """Gives ops an order in which tensors do not wait in memory, and keeps delegates to it.

        See `scheduling` for the order and `rematerialising` for what is computed again instead of waiting.
        """
        for subgraph in self._model.subgraphs:
            subgraph.operators = as_late_as_possible(subgraph, self._builtin)
            compute_again(subgraph, self._builtin)
        edges = [control_edges(subgraph, self._builtin) for subgraph in self._model.subgraphs]
        self.set_metadata(CONTROL_DEPENDENCIES, serialized(edges))

    def drop_names(self) -> None:
        """Removes the names of tensors and functions: signatures name what a caller needs."""
        for subgraph in self._model.subgraphs:
            subgraph.name = None
            for tensor in subgraph.tensors:
                tensor.name = None

    def set_metadata(self, name: str, data: bytes) -> None:
        """Adds a metadata entry."""
        entry = schema.MetadataT()
        entry.name, entry.buffer = name, self._add_buffer(data)
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

    def pack(self) -> bytes:
        """The file."""
        builder = flatbuffers.Builder(1 << 20)
        builder.Finish(self._model.Pack(builder), b"TFL3")
        return bytes(builder.Output())

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

    def _initialiser_subgraphs(self) -> Iterator[tuple[int, Any]]:
        seen: set[int] = set()
        for subgraph in self._model.subgraphs:
            for operator in subgraph.operators:
                if self._builtin(operator) == schema.BuiltinOperator.CALL_ONCE:
                    index = operator.builtinOptions.initSubgraphIndex
                    if index not in seen:
                        seen.add(index)
                        yield index, self._model.subgraphs[index]

    def _initialisers(self) -> Iterator[tuple[Any, Any, str]]:
        """Every assignment in the initialiser, with the variable's shared name."""
        for _, subgraph in self._initialiser_subgraphs():
            names: dict[int, str] = {}
            for operator in subgraph.operators:
                builtin = self._builtin(operator)
                if builtin == schema.BuiltinOperator.VAR_HANDLE:
                    names[int(operator.outputs[0])] = _text(operator.builtinOptions.sharedName)
                elif builtin == schema.BuiltinOperator.ASSIGN_VARIABLE:
                    yield subgraph, operator, names[int(operator.inputs[0])]

    def _fill(self, subgraph: Any, source: int) -> Any:
        """A FILL op that computes a constant tensor, or None where it is not worth it or not possible."""
        tensor = subgraph.tensors[source]
        data = self._model.buffers[tensor.buffer].data
        if data is None or len(data) < _FILL_FROM_BYTES or tensor.type not in _ITEM_BYTES:
            return None
        if tensor.buffer in self._owned:
            return None  # The initial value of a parameter is read from its buffer, whatever it is.
        items = np.asarray(data, np.uint8).reshape(-1, _ITEM_BYTES[tensor.type])
        if (items != items[0]).any():
            return None
        dims = self._constant_shape(subgraph, tensor.shape)
        value = self._constant(subgraph, tensor.type, [], items[0].tobytes())
        output = schema.TensorT()
        output.type, output.shape, output.buffer = tensor.type, tensor.shape, 0
        operator = schema.OperatorT()
        operator.opcodeIndex = self._operator_code(schema.BuiltinOperator.FILL)
        operator.inputs, operator.outputs = [dims, value], [_add(subgraph.tensors, output)]
        operator.builtinOptionsType = schema.BuiltinOptions.FillOptions
        operator.builtinOptions = schema.FillOptionsT()
        return operator

    def _restore(self, subgraph: Any, source: int, storage: str) -> Any:
        """Makes a constant tensor the output of a DEQUANTIZE op, which is returned; None where it stays as it is."""
        tensor = subgraph.tensors[source]
        data = self._model.buffers[tensor.buffer].data
        if tensor.type != schema.TensorType.FLOAT32 or data is None or not len(data):
            return None
        stored = store(np.asarray(data, np.uint8).view(np.float32).reshape(tensor.shape), storage)
        if stored is None:
            return None
        dtype = schema.TensorType.INT8 if stored.scales.size else schema.TensorType.FLOAT16
        constant = self._constant(subgraph, dtype, list(tensor.shape), stored.values.tobytes())
        version = 3
        if stored.scales.size:
            subgraph.tensors[constant].quantization = self._scales(stored)
            version = 5 if stored.scales.size > 1 else 2
        tensor.buffer = 0
        operator = schema.OperatorT()
        operator.opcodeIndex = self._operator_code(schema.BuiltinOperator.DEQUANTIZE, version)
        operator.inputs, operator.outputs = [constant], [source]
        operator.builtinOptionsType = schema.BuiltinOptions.DequantizeOptions
        operator.builtinOptions = schema.DequantizeOptionsT()
        return operator

    def _scales(self, stored: StoredConstant) -> SharedQuantization:
        """One object for all signatures that know a constant."""
        quantization = SharedQuantization()
        quantization.scale = stored.scales.tolist()
        quantization.zeroPoint = [0] * stored.scales.size
        quantization.quantizedDimension = stored.axis
        return self._quantizations.setdefault((stored.axis, stored.scales.tobytes()), quantization)

    def _copy_tensor(self, subgraph: Any, source: int) -> int:
        """Adds an op that gives its input back: the maximum of a value and itself."""
        original = subgraph.tensors[source]
        output = schema.TensorT()
        output.type, output.shape, output.buffer = original.type, original.shape, 0
        operator = schema.OperatorT()
        if original.type == schema.TensorType.BOOL:
            operator.opcodeIndex = self._operator_code(schema.BuiltinOperator.LOGICAL_OR)
            operator.builtinOptionsType = schema.BuiltinOptions.LogicalOrOptions
            operator.builtinOptions = schema.LogicalOrOptionsT()
        else:
            operator.opcodeIndex = self._operator_code(schema.BuiltinOperator.MAXIMUM)
            operator.builtinOptionsType = schema.BuiltinOptions.MaximumMinimumOptions
            operator.builtinOptions = schema.MaximumMinimumOptionsT()
        operator.inputs, operator.outputs = [source, source], [_add(subgraph.tensors, output)]
        subgraph.operators = [*subgraph.operators, operator]
        return int(operator.outputs[0])

    def _constant_shape(self, subgraph: Any, shape: Sequence[int]) -> int:
        return self._constant(subgraph, schema.TensorType.INT32, [len(shape)], np.asarray(shape, np.int32).tobytes())

    def _constant(self, subgraph: Any, dtype: int, shape: list[int], data: bytes) -> int:
        tensor = schema.TensorT()
        tensor.type, tensor.shape, tensor.buffer = dtype, shape, self._add_buffer(data)
        return _add(subgraph.tensors, tensor)

    def _add_buffer(self, data: bytes) -> int:
        buffer = AlignedBuffer()
        buffer.data = np.frombuffer(data, np.uint8)
        return _add(self._model.buffers, buffer)

    def _operator_code(self, builtin: int, version: int = 1) -> int:
        for index, code in enumerate(self._model.operatorCodes):
            if code.builtinCode == builtin and code.version == version:
                return index
        code = schema.OperatorCodeT()
        # The old field holds what fits into a byte, for readers from before there were more.
        code.builtinCode, code.deprecatedBuiltinCode, code.version = builtin, min(builtin, 127), version
        return _add(self._model.operatorCodes, code)

    def _builtin(self, operator: Any) -> int:
        code = self._model.operatorCodes[operator.opcodeIndex]
        return max(int(code.builtinCode), int(code.deprecatedBuiltinCode))


_ITEM_BYTES = {schema.TensorType.FLOAT32: 4, schema.TensorType.INT32: 4, schema.TensorType.INT64: 8}


def _add(items: Any, item: Any) -> int:
    items.append(item)
    return len(items) - 1


def _text(name: bytes | str) -> str:
    return name.decode() if isinstance(name, bytes) else name
