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

    model = schema.ModelT.InitFromPackedBuf(data, 0)
    graph = _Graph(model, schema)
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

    graph = _Graph(schema.ModelT.InitFromPackedBuf(data, 0), schema)
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

    graph = _Graph(schema.ModelT.InitFromPackedBuf(data, 0), schema)
    fitting = [each for name, each in TARGETS.items() if name != target and not list(_operators(graph, name, {}))]
    replace = "Write what the layer does with other ops: other types or fewer dimensions, as the op's versions tell"
    if not fitting:
        return f"{replace}."
    return f"If every device runs {fitting[0].runtime}, convert with `target={fitting[0].name!r}`. {replace}."


class _Graph:
    """A flatbuffer model with names instead of numbers."""

    def __init__(self, model: Any, schema: Any) -> None:
        self.model = model
        self.subgraphs: Sequence[Any] = model.subgraphs or []
        self.op_names = {code: name for name, code in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
        self.types = {code: name.lower() for name, code in vars(schema.TensorType).items() if not name.startswith("_")}

    def op(self, operator: Any) -> str:
        code = self.model.operatorCodes[operator.opcodeIndex]
        # Old files hold the code in an int8 field, newer ones in both.
        return str(self.op_names[max(code.builtinCode, code.deprecatedBuiltinCode)])

    def operators(self, index: int, name: str) -> Iterator[Any]:
        return (each for each in self.subgraphs[index].operators or [] if self.op(each) == name)

    def handles(self, index: int) -> dict[int, str]:
        """Tensors of a subgraph that are handles of variables, with the variables' names."""
        return {
            each.outputs[0]: _text(each.builtinOptions.container) + "/" + _text(each.builtinOptions.sharedName)
            for each in self.operators(index, "VAR_HANDLE")
        }

    def initialised(self, index: int) -> set[str]:
        """Variables that the initialiser of a subgraph assigns."""
        names: set[str] = set()
        for call in self.operators(index, "CALL_ONCE"):
            target = call.builtinOptions.initSubgraphIndex
            handles = self.handles(target)
            names |= {handles[each.inputs[0]] for each in self.operators(target, "ASSIGN_VARIABLE")}
        return names


def _text(value: bytes | str | None) -> str:
    return value.decode() if isinstance(value, bytes) else value or ""


def _operators(graph: _Graph, target: str, makers: Makers) -> Iterator[Finding]:
    tables = op_tables(target)
    for code in graph.model.operatorCodes or []:
        name = graph.op_names[max(code.builtinCode, code.deprecatedBuiltinCode)]
        if name == "CUSTOM":
            custom = _text(code.customCode)
            kind = "Flex op" if custom.startswith("Flex") else "custom op"
            yield Finding("custom-op", f"It holds the {kind} {custom}, which no plain interpreter has.")
            continue
        refusals = [refusal for table in tables if (refusal := table.refuses(name, code.version))]
        if refusals:
            made = makers.get((name, code.version), ())
            origin = f", made by {' and '.join(made)}" if made else ""
            yield Finding("op-version", f"It needs {name} version {code.version}{origin}; {'; '.join(refusals)}.")


def _kernels(graph: _Graph, target: str) -> Iterator[Finding]:
    """Finds what is known to and computed wrongly by a runtime of the target."""
    if all(each.runtime != wrong_kernels.RUNTIME for each in included(target)):
        return
    wrongly = f"which {wrong_kernels.RUNTIME} 2.14 computes wrongly"
    for index, subgraph in enumerate(graph.subgraphs):
        for product in graph.operators(index, "BATCH_MATMUL"):
            left, right = (_known_shape(subgraph.tensors[int(each)]) for each in product.inputs)
            if wrong_kernels.repeats_beside_transposed(product.builtinOptions.adjX, left, right):
                yield Finding(
                    "wrong-kernel",
                    f"It holds a BATCH_MATMUL of {left}, transposed, and {right}, repeated, {wrongly}.",
                )
        for reversal in graph.operators(index, "REVERSE_V2"):
            axes = math.prod(_shape(subgraph.tensors[int(reversal.inputs[1])]))
            if wrong_kernels.reverses_several(axes):
                yield Finding("wrong-kernel", f"It holds a REVERSE_V2 of {axes} axes at once, {wrongly}.")


def _variables(graph: _Graph) -> Iterator[Finding]:
    initialisers = {
        call.builtinOptions.initSubgraphIndex
        for index in range(len(graph.subgraphs))
        for call in graph.operators(index, "CALL_ONCE")
    }
    entries = {each.subgraphIndex: _text(each.signatureKey) for each in graph.model.signatureDefs or []}
    for index in range(len(graph.subgraphs)):
        if index in initialisers or index not in entries:
            continue  # branches and bodies share the variables of the signature that calls them
        for name in sorted(set(graph.handles(index).values()) - graph.initialised(index)):
            yield Finding(
                "uninitialised-variable", f"Signature {entries[index]!r} does not initialise variable {name!r}."
            )


def _signatures(graph: _Graph, manifest: ModelManifest) -> Iterator[Finding]:
    found = {_text(each.signatureKey): each for each in graph.model.signatureDefs or []}
    for name in dict.fromkeys((*REQUIRED_SIGNATURES, *manifest.signatures)):
        if name not in found:
            yield Finding("signature", f"Signature {name!r} is missing.")
        elif name not in manifest.signatures:
            yield Finding("signature", f"Signature {name!r} is not in the manifest.")
        else:
            definition = found[name]
            tensors = graph.subgraphs[definition.subgraphIndex].tensors
            promised = manifest.signatures[name]
            for kind, maps, specs in (
                ("input", definition.inputs, promised.inputs),
                ("output", definition.outputs, promised.outputs),
            ):
                actual = {_text(each.name): tensors[each.tensorIndex] for each in maps or []}
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
        shape, dtype = _shape(tensor), graph.types[tensor.type]
        if shape != spec.shape or dtype != spec.dtype:
            yield Finding(
                "signature", f"The {where} {key!r} is {dtype} {shape}, the manifest says {spec.dtype} {spec.shape}."
            )


def _known_shape(tensor: Any) -> tuple[int, ...]:
    """A tensor's shape, -1 where it is not known."""
    signature = tensor.shapeSignature
    return _shape(tensor) if signature is None else tuple(map(int, signature))


def _shape(tensor: Any) -> tuple[int, ...]:
    return tuple(int(size) for size in tensor.shape) if tensor.shape is not None else ()
