"""The graphs of a TFLite file, read without TensorFlow and without an interpreter."""

from __future__ import annotations

import math
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgefl.errors import ModelFileError
from edgefl.model_file import ModelFile
from edgefl.wire.generated import tflite_graph_generated as schema

__all__ = ["Graph", "Operator", "Tensor", "read_graph"]


@dataclass(frozen=True)
class Tensor:
    """A tensor of a subgraph.

    Attributes:
        shape: its static dimensions.
        dtype: as the schema calls it, in lower case.
        buffer: where its constant value lies; a buffer without bytes, such as 0, for what is computed.
    """

    shape: tuple[int, ...]
    dtype: str
    buffer: int

    @property
    def size(self) -> int:
        """The number of values."""
        return math.prod(self.shape)

    @property
    def is_float(self) -> bool:
        """True for every floating-point type."""
        return self.dtype.startswith(("float", "bfloat"))


@dataclass(frozen=True)
class Operator:
    """One op.

    Attributes:
        name: the builtin's name; ``CUSTOM name`` for a custom op.
        version: of the builtin.
        inputs: tensors of the same subgraph; -1 for one that is left out.
        outputs: tensors of the same subgraph.
        calls: subgraphs that may run with it: the branches of an IF, condition and body of a WHILE.
        initialiser: the subgraph that a CALL_ONCE runs; else None.
        window: number of values that a pooling op looks at for one result.
        left_transposed: True for a BATCH_MATMUL that transposes its left operand.
    """

    name: str
    version: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    calls: tuple[int, ...] = ()
    initialiser: int | None = None
    window: int = 1
    left_transposed: bool = False


@dataclass(frozen=True)
class Graph:
    """All subgraphs of a file.

    Attributes:
        tensors: for each subgraph.
        operators: for each subgraph, in the order in which they run.
        signatures: name to subgraph.
        buffer_sizes: bytes of each buffer.
    """

    tensors: Sequence[Sequence[Tensor]]
    operators: Sequence[Sequence[Operator]]
    signatures: Mapping[str, int]
    buffer_sizes: Sequence[int]

    def reached(self, subgraph: int) -> Iterator[tuple[int, Operator]]:
        """Every op that a call of a subgraph may run, initialisers left out, with the subgraph that it lies in."""
        waiting, seen = [subgraph], {subgraph}
        while waiting:
            index = waiting.pop()
            for operator in self.operators[index]:
                yield index, operator
                new = set(operator.calls) - seen
                waiting += sorted(new)
                seen |= new

    def count(self, signature: str) -> dict[str, int]:
        """Counts how often a signature has each op, the most frequent first; a loop's body counts once."""
        return dict(Counter(each.name for _, each in self.reached(self.signatures[signature])).most_common())

    def initialisers(self) -> set[int]:
        """The subgraphs that give variables their first values."""
        return {each.initialiser for ops in self.operators for each in ops if each.initialiser is not None}


def read_graph(file: ModelFile) -> Graph:
    """Reads the graphs of a model file.

    Raises:
        ModelFileError: they cannot be parsed.
    """
    try:
        return _read(schema.Model.GetRootAs(file.data, 0))
    except (struct.error, IndexError, ValueError, TypeError, KeyError) as error:
        raise ModelFileError(
            f"{file.name} has graphs that cannot be parsed.",
            hint="The file is damaged: copy it again, or make it again with `edgefl convert`.",
        ) from error


_OPS = {code: name for name, code in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
_TYPES = {code: name.lower() for name, code in vars(schema.TensorType).items() if not name.startswith("_")}


def _read(model: Any) -> Graph:
    codes = [_code(model.OperatorCodes(index)) for index in range(model.OperatorCodesLength())]
    subgraphs = [model.Subgraphs(index) for index in range(model.SubgraphsLength())]
    definitions = [model.SignatureDefs(index) for index in range(model.SignatureDefsLength())]
    return Graph(
        [[_tensor(each.Tensors(index)) for index in range(each.TensorsLength())] for each in subgraphs],
        [[_operator(each.Operators(index), codes) for index in range(each.OperatorsLength())] for each in subgraphs],
        {each.SignatureKey().decode(): each.SubgraphIndex() for each in definitions},
        [model.Buffers(index).DataLength() for index in range(model.BuffersLength())],
    )


def _code(code: Any) -> tuple[str, int]:
    # Old files hold the code in an int8 field, newer ones in both.
    name = _OPS[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
    if name == "CUSTOM":
        name = f"CUSTOM {(code.CustomCode() or b'').decode()}"
    return name, code.Version()


def _tensor(tensor: Any) -> Tensor:
    shape = tuple(map(int, tensor.ShapeAsNumpy())) if tensor.ShapeLength() else ()
    return Tensor(shape, _TYPES[tensor.Type()], tensor.Buffer())


def _operator(operator: Any, codes: Sequence[tuple[str, int]]) -> Operator:
    name, version = codes[operator.OpcodeIndex()]
    return Operator(
        name,
        version,
        tuple(map(int, operator.InputsAsNumpy())) if operator.InputsLength() else (),
        tuple(map(int, operator.OutputsAsNumpy())) if operator.OutputsLength() else (),
        **_options(operator),
    )


def _options(operator: Any) -> dict[str, Any]:
    kind, kinds = operator.BuiltinOptionsType(), schema.BuiltinOptions
    readers: dict[int, tuple[Any, Callable[[Any], dict[str, Any]]]] = {
        kinds.Pool2DOptions: (schema.Pool2DOptions, _window),
        kinds.IfOptions: (schema.IfOptions, _branches),
        kinds.WhileOptions: (schema.WhileOptions, _loop),
        kinds.BatchMatMulOptions: (schema.BatchMatMulOptions, _product),
        kinds.CallOnceOptions: (schema.CallOnceOptions, _once),
    }
    if kind not in readers:
        return {}
    table, read = readers[kind]
    options, union = table(), operator.BuiltinOptions()
    options.Init(union.Bytes, union.Pos)
    return read(options)


def _window(options: Any) -> dict[str, Any]:
    return {"window": options.FilterWidth() * options.FilterHeight()}


def _branches(options: Any) -> dict[str, Any]:
    return {"calls": (options.ThenSubgraphIndex(), options.ElseSubgraphIndex())}


def _loop(options: Any) -> dict[str, Any]:
    return {"calls": (options.CondSubgraphIndex(), options.BodySubgraphIndex())}


def _product(options: Any) -> dict[str, Any]:
    return {"left_transposed": bool(options.AdjX())}


def _once(options: Any) -> dict[str, Any]:
    return {"initialiser": options.InitSubgraphIndex()}
