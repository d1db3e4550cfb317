"""What can be said about a model file without running it: will every runtime load it, is every variable initialised?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from edgefl.errors import UnsupportedModelError
from edgefl.manifest import ModelManifest, TensorSpec
from edgefl_converters.op_versions import OLDEST_RUNTIME, OLDEST_RUNTIME_VERSIONS

__all__ = ["REQUIRED_SIGNATURES", "Finding", "lint", "lint_inference", "require_clean"]

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
        rule: ``custom-op``, ``op-version``, ``uninitialised-variable``, ``signature`` or ``scalar-input``.
        message: one line that names the op, variable or signature.
    """

    rule: str
    message: str


def lint(data: bytes, manifest: ModelManifest) -> list[Finding]:
    """Checks the flatbuffer of a model file.

    Args:
        data: the whole file.
        manifest: what the file says about itself.

    Returns:
        What is wrong with it; empty when nothing is.
    """
    from tensorflow.lite.python import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(data, 0)
    graph = _Graph(model, schema)
    return [
        *_operators(graph),
        *_variables(graph),
        *_signatures(graph, manifest),
    ]


def lint_inference(data: bytes) -> list[Finding]:
    """Checks a model without training: every op known everywhere, every weight a constant.

    Args:
        data: the whole file.
    """
    from tensorflow.lite.python import schema_py_generated as schema

    graph = _Graph(schema.ModelT.InitFromPackedBuf(data, 0), schema)
    variables = {name for index in range(len(graph.subgraphs)) for name in graph.handles(index).values()}
    return [
        *_operators(graph),
        *(Finding("variable", f"Weight {name!r} is a variable, expected a constant.") for name in sorted(variables)),
    ]


def require_clean(data: bytes, manifest: ModelManifest) -> None:
    """Raises if `lint` finds anything.

    Raises:
        UnsupportedModelError: names every finding.
    """
    findings = lint(data, manifest)
    if findings:
        raise UnsupportedModelError(
            f"The converted model would not run everywhere: {' '.join(finding.message for finding in findings)}",
            hint="Replace the layer that needs this, or report it: the converter should have refused or lowered it.",
        )


class _Graph:
    """A flatbuffer model with names instead of numbers."""

    def __init__(self, model: Any, schema: Any) -> None:
        self.model = model
        self.subgraphs: Sequence[Any] = model.subgraphs or []
        self.op_names = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
        self.types = {code: name.lower() for name, code in vars(schema.TensorType).items() if isinstance(code, int)}

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


def _operators(graph: _Graph) -> Iterator[Finding]:
    for code in graph.model.operatorCodes or []:
        name = graph.op_names[max(code.builtinCode, code.deprecatedBuiltinCode)]
        if name == "CUSTOM":
            custom = _text(code.customCode)
            kind = "Flex op" if custom.startswith("Flex") else "custom op"
            yield Finding("custom-op", f"It holds the {kind} {custom}, which no plain interpreter has.")
        elif name not in OLDEST_RUNTIME_VERSIONS:
            yield Finding("op-version", f"{OLDEST_RUNTIME} has no op {name}.")
        elif code.version > OLDEST_RUNTIME_VERSIONS[name]:
            yield Finding(
                "op-version",
                f"It needs {name} version {code.version}, {OLDEST_RUNTIME} knows {OLDEST_RUNTIME_VERSIONS[name]}.",
            )


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


def _shape(tensor: Any) -> tuple[int, ...]:
    return tuple(int(size) for size in tensor.shape) if tensor.shape is not None else ()
