"""Looks at a model file without running it: will every runtime load it, is every variable initialised?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgefl.errors import UnsupportedModelError
from edgefl.manifest import ModelManifest, TensorSpec
from edgefl.targets import ALL, TARGETS, included
from edgefl_converters.targets import op_tables, wrong_kernels

__all__ = ["REQUIRED_SIGNATURES", "Finding", "Makers", "UnfitTargetError", "lint", "lint_inference", "require_clean"]

Makers = Mapping[tuple[str, int], Sequence[str]]
"""Builtin op and its version to what made such ops, in words: ``layer 'conv' (Conv2D)``."""

REQUIRED_SIGNATURES = (
    "train",
    "evaluate",
    "infer",
    "get_weights",
    "set_weights",
    "get_state",
    "set_state",
    "reset_optimizer",
)


@dataclass(frozen=True)
class Finding:
    """Something in a model file that some runtime would refuse or compute wrongly.

    Attributes:
        rule: ``custom-op``, ``op-version``, ``wrong-kernel``, ``uninitialised-variable``, ``signature`` or
            ``scalar-input``.
        message: one line that names the op, variable or signature.
    """

    rule: str
    message: str


class UnfitTargetError(UnsupportedModelError):
    """Nothing is wrong with the file but that a target's runtime does not know its ops."""


def lint(data: bytes, manifest: ModelManifest, makers: Makers | None = None) -> list[Finding]:
    """Checks the flatbuffer of a model file.

    Args:
        data: the whole file.
        manifest: what the file says about itself, also for which target it was made.
        makers: what made its ops, where that is known.

    Returns:
        What is wrong with it; empty when nothing is.
    """
    from tensorflow.lite.python import schema_py_generated as schema

    graph = _Graph(schema.Model.GetRootAs(data, 0), schema)
    return [
        *_operators(graph, manifest.target, makers or {}),
        *_kernels(graph, manifest.target),
        *_variables(graph),
        *_signatures(graph, manifest),
    ]


def lint_inference(data: bytes, target: str = ALL) -> list[Finding]:
    """Checks a model without training: every op known to the target, every weight a constant.

    Args:
        data: the whole file.
        target: a name of `edgefl.targets`.
    """
    from tensorflow.lite.python import schema_py_generated as schema

    graph = _Graph(schema.Model.GetRootAs(data, 0), schema)
    variables = {name for index in range(len(graph.subgraphs)) for name in graph.handles(index).values()}
    return [
        *_operators(graph, target, {}),
        *_kernels(graph, target),
        *(Finding("variable", f"Weight {name!r} is a variable, expected a constant.") for name in sorted(variables)),
    ]


def require_clean(data: bytes, manifest: ModelManifest, makers: Makers | None = None) -> None:
    """Raises if `lint` finds anything.

    Raises:
        UnfitTargetError: the target's runtimes do not know an op; the message names it and the layers that made it.
        UnsupportedModelError: anything else; names every finding.
    """
    findings = lint(data, manifest, makers)
    if not findings:
        return
    text = " ".join(finding.message for finding in findings)
    if all(finding.rule == "op-version" for finding in findings):
        raise UnfitTargetError(
            f"The converted model does not fit the target {manifest.target!r}: {text}",
            hint=_way_out(data, manifest.target),
        )
    raise UnsupportedModelError(
        f"The converted model would not run everywhere: {text}",
        hint="Replace the layer that needs this, or report it: the converter should have refused or lowered it.",
    )


def _way_out(data: bytes, target: str) -> str:
    """Says what to do about ops that a target does not know: a target that does, or another layer."""
    from tensorflow.lite.python import schema_py_generated as schema

    graph = _Graph(schema.Model.GetRootAs(data, 0), schema)
    fitting = [each for name, each in TARGETS.items() if name != target and not list(_operators(graph, name, {}))]
    replace = "Write what the layer does with other ops: other types or fewer dimensions, as the op's versions tell"
    if not fitting:
        return f"{replace}."
    return f"If every device runs {fitting[0].runtime}, convert with `target={fitting[0].name!r}`. {replace}."


class _Graph:
    """A flatbuffer model with names instead of numbers, read where it lies.

    Files have thousands of ops, of which a few on variables are looked at: making objects of all takes many times as
    long as everything that is checked.

    Args:
        model: the schema's reader, `Model`.
        schema: the module that it is of.
    """

    def __init__(self, model: Any, schema: Any) -> None:
        self._schema = schema
        op_names = {code: name for name, code in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
        self.types = {code: name.lower() for name, code in vars(schema.TensorType).items() if not name.startswith("_")}
        codes = [model.OperatorCodes(index) for index in range(model.OperatorCodesLength())]
        # Old files hold the code in an int8 field, newer ones in both.
        self.codes = [(op_names[max(each.BuiltinCode(), each.DeprecatedBuiltinCode())], each) for each in codes]
        self.subgraphs: Sequence[Any] = [model.Subgraphs(index) for index in range(model.SubgraphsLength())]
        self.signatures: Sequence[Any] = [model.SignatureDefs(index) for index in range(model.SignatureDefsLength())]
        self._operators = [self._by_name(subgraph) for subgraph in self.subgraphs]

    def _by_name(self, subgraph: Any) -> dict[str, list[Any]]:
        found: dict[str, list[Any]] = {}
        for index in range(subgraph.OperatorsLength()):
            operator = subgraph.Operators(index)
            found.setdefault(self.codes[operator.OpcodeIndex()][0], []).append(operator)
        return found

    def operators(self, index: int, name: str) -> Sequence[Any]:
        return self._operators[index].get(name, ())

    def called(self, call: Any) -> int:
        """The subgraph that a CALL_ONCE runs."""
        return int(self._options(call, "CallOnceOptions").InitSubgraphIndex())

    def is_left_transposed(self, product: Any) -> bool:
        """Whether a BATCH_MATMUL transposes its left side."""
        return bool(self._options(product, "BatchMatMulOptions").AdjX())

    def handles(self, index: int) -> dict[int, str]:
        """Tensors of a subgraph that are handles of variables, with the variables' names."""
        found = {}
        for each in self.operators(index, "VAR_HANDLE"):
            options = self._options(each, "VarHandleOptions")
            found[each.Outputs(0)] = f"{_text(options.Container())}/{_text(options.SharedName())}"
        return found

    def initialised(self, index: int) -> set[str]:
        """Variables that the initialiser of a subgraph assigns."""
        names: set[str] = set()
        for call in self.operators(index, "CALL_ONCE"):
            target = self.called(call)
            handles = self.handles(target)
            names |= {handles[each.Inputs(0)] for each in self.operators(target, "ASSIGN_VARIABLE")}
        return names

    def _options(self, operator: Any, name: str) -> Any:
        options, table = getattr(self._schema, name)(), operator.BuiltinOptions()
        options.Init(table.Bytes, table.Pos)
        return options


def _text(value: bytes | str | None) -> str:
    return value.decode() if isinstance(value, bytes) else value or ""


def _operators(graph: _Graph, target: str, makers: Makers) -> Iterator[Finding]:
    tables = op_tables(target)
    for name, code in graph.codes:
        if name == "CUSTOM":
            custom = _text(code.CustomCode())
            kind = "Flex op" if custom.startswith("Flex") else "custom op"
            yield Finding("custom-op", f"It holds the {kind} {custom}, which no plain interpreter has.")
            continue
        version = int(code.Version())
        refusals = [refusal for table in tables if (refusal := table.refuses(name, version))]
        if refusals:
            made = makers.get((name, version), ())
            origin = f", made by {' and '.join(made)}" if made else ""
            yield Finding("op-version", f"It needs {name} version {version}{origin}; {'; '.join(refusals)}.")


def _kernels(graph: _Graph, target: str) -> Iterator[Finding]:
    """Finds what is known to and computed wrongly by a runtime of the target."""
    if all(each.runtime != wrong_kernels.RUNTIME for each in included(target)):
        return
    wrongly = f"which {wrong_kernels.RUNTIME} 2.14 computes wrongly"
    for index, subgraph in enumerate(graph.subgraphs):
        for product in graph.operators(index, "BATCH_MATMUL"):
            left, right = (_known_shape(subgraph.Tensors(product.Inputs(side))) for side in (0, 1))
            if wrong_kernels.repeats_beside_transposed(graph.is_left_transposed(product), left, right):
                yield Finding(
                    "wrong-kernel",
                    f"It holds a BATCH_MATMUL of {left}, transposed, and {right}, repeated, {wrongly}.",
                )
        for reversal in graph.operators(index, "REVERSE_V2"):
            axes = math.prod(_shape(subgraph.Tensors(reversal.Inputs(1))))
            if wrong_kernels.reverses_several(axes):
                yield Finding("wrong-kernel", f"It holds a REVERSE_V2 of {axes} axes at once, {wrongly}.")


def _variables(graph: _Graph) -> Iterator[Finding]:
    initialisers = {
        graph.called(call) for index in range(len(graph.subgraphs)) for call in graph.operators(index, "CALL_ONCE")
    }
    entries = {each.SubgraphIndex(): _text(each.SignatureKey()) for each in graph.signatures}
    for index in range(len(graph.subgraphs)):
        if index in initialisers or index not in entries:
            continue  # branches and bodies share the variables of the signature that calls them
        for name in sorted(set(graph.handles(index).values()) - graph.initialised(index)):
            yield Finding(
                "uninitialised-variable", f"Signature {entries[index]!r} does not initialise variable {name!r}."
            )


def _signatures(graph: _Graph, manifest: ModelManifest) -> Iterator[Finding]:
    found = {_text(each.SignatureKey()): each for each in graph.signatures}
    for name in dict.fromkeys((*REQUIRED_SIGNATURES, *manifest.signatures)):
        if name not in found:
            yield Finding("signature", f"Signature {name!r} is missing.")
        elif name not in manifest.signatures:
            yield Finding("signature", f"Signature {name!r} is not in the manifest.")
        else:
            definition = found[name]
            subgraph = graph.subgraphs[definition.SubgraphIndex()]
            promised = manifest.signatures[name]
            for kind, maps, specs in (
                ("input", map(definition.Inputs, range(definition.InputsLength())), promised.inputs),
                ("output", map(definition.Outputs, range(definition.OutputsLength())), promised.outputs),
            ):
                actual = {_text(each.Name()): subgraph.Tensors(each.TensorIndex()) for each in maps}
                yield from _tensors(graph, f"{kind} of {name!r}", actual, specs)
                if kind == "input":
                    yield from (
                        Finding("scalar-input", f"Input {key!r} of {name!r} has no dimension.")
                        for key, tensor in actual.items()
                        if not len(_shape(tensor))
                    )


def _tensors(graph: _Graph, where: str, actual: dict[str, Any], specs: Sequence[TensorSpec]) -> Iterator[Finding]:
    promised = {spec.tensor: spec for spec in specs}
    for key in sorted(actual.keys() ^ promised.keys()):
        side = "manifest" if key in actual else "graph"
        yield Finding("signature", f"The {where} {key!r} is not in the {side}.")
    for key in sorted(actual.keys() & promised.keys()):
        spec, tensor = promised[key], actual[key]
        shape, dtype = _shape(tensor), graph.types[tensor.Type()]
        if shape != spec.shape or dtype != spec.dtype:
            yield Finding(
                "signature", f"The {where} {key!r} is {dtype} {shape}, the manifest says {spec.dtype} {spec.shape}."
            )


def _known_shape(tensor: Any) -> tuple[int, ...]:
    """A tensor's shape, -1 where it is not known."""
    known = tuple(tensor.ShapeSignature(axis) for axis in range(tensor.ShapeSignatureLength()))
    return known or _shape(tensor)


def _shape(tensor: Any) -> tuple[int, ...]:
    return tuple(tensor.Shape(axis) for axis in range(tensor.ShapeLength()))
