"""``edgefl inspect``: what is in a model file, and what the interpreters that are installed make of it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from edgefl.algorithms import supported
from edgefl.cli.inspect_text import as_text
from edgefl.cli.output import Format, FormatOption, emit
from edgefl.errors import MissingDependencyError
from edgefl.inspecting.flops import flops
from edgefl.inspecting.graph import Graph, read_graph
from edgefl.inspecting.reports import evidence_beside
from edgefl.inspecting.sizes import sizes_by_role
from edgefl.layout import Parameter
from edgefl.manifest import ModelManifest
from edgefl.model_file import ModelFile
from edgefl.parts import MEASURING, install_line, load

__all__ = ["describe", "inspect"]


def inspect(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .tflite file made by `edgefl convert`.")],
    measure: Annotated[
        bool | None,
        typer.Option(
            "--measure/--no-measure",
            help="Run every signature once on each installed interpreter, to measure memory and delegation.",
            show_default="if an interpreter is installed",
        ),
    ] = None,
    format: FormatOption = Format.text,
) -> None:
    """Say what is in a model file and what it costs: sizes, ops, parameters, memory, FLOPs; checks that it is whole."""
    model = ModelFile.read(file)
    model.verify()
    result = describe(model)
    result["evidence"] = evidence_beside(file, model)
    result["measured"] = None if measure is False else _measured(file, model.manifest)
    result["install"] = None if result["measured"] else install_line(MEASURING.extra)
    if measure and not result["measured"]:
        raise MissingDependencyError(
            "No TFLite interpreter is installed to measure with.", hint=f"Install one with: {result['install']}"
        )
    emit(result, format, lambda: as_text(str(file), result))


def describe(model: ModelFile) -> dict[str, Any]:
    """The content of a model file as plain values, read without an interpreter."""
    manifest = model.manifest
    layout = manifest.layout
    graph = read_graph(model)
    return {
        "bytes": len(model.data),
        "sizes": sizes_by_role(model, graph),
        "target": manifest.target,
        "batch_size": manifest.batch_size,
        "further_batch_sizes": list(manifest.further_batch_sizes),
        "micro_batch": manifest.micro_batch,
        "mixes_rows": manifest.mixes_rows,
        "of_whole_batches": list(manifest.of_whole_batches),
        "inputs": list(manifest.inputs),
        "index_sizes": dict(manifest.index_sizes),
        "outputs": list(manifest.outputs),
        "targets": [target.name for target in manifest.targets],
        "loss": _class_name(manifest.loss),
        "optimizer": _class_name(manifest.optimizer),
        "learning_rate": manifest.learning_rate,
        "metrics": [metric.name for metric in manifest.metrics],
        "signatures": {name: _signature(manifest, graph, name) for name in manifest.signatures},
        "parameters": [_parameter(parameter) for parameter in manifest.parameters],
        "frozen": list(manifest.frozen),
        "fine_tuning": dict(manifest.fine_tuning),
        "algorithms": list(supported(manifest)),
        "shared_elements": layout.size,
        "weight_elements": layout.weight_size,
        "statistic_elements": layout.statistic_size,
        "local_elements": sum(each.size for each in manifest.parameters if not each.shared),
        "bytes_that_travel": 4 * layout.size,
        "graph_hash": manifest.graph_hash,
        "layout_hash": manifest.layout_hash,
        "weights_hash": manifest.weights_hash,
        "producer": dict(manifest.producer),
    }


def _signature(manifest: ModelManifest, graph: Graph, name: str) -> dict[str, Any]:
    signature = manifest.signatures[name]
    return {
        "inputs": {spec.name: [spec.dtype, list(spec.shape)] for spec in signature.inputs},
        "outputs": {spec.name: [spec.dtype, list(spec.shape)] for spec in signature.outputs},
        "ops": graph.count(name) if name in graph.signatures else {},
        "flops": flops(graph, name) if name in graph.signatures else None,
    }


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "keras_path": parameter.keras_path,
        "shape": list(parameter.shape),
        "role": parameter.role,
        "shared": parameter.shared,
    }


def _class_name(serialised: Any) -> Any:
    """The class of what Keras serialised, the name of a function; what is not so serialised is shown as it is."""
    if isinstance(serialised, dict) and "class_name" in serialised:
        is_function = serialised["class_name"] == "function"
        return serialised["config"] if is_function else serialised["class_name"]
    return serialised


def _measured(file: Path, manifest: ModelManifest) -> list[dict[str, Any]]:
    """Measures what each installed interpreter makes of the file; empty if none is installed."""
    return [asdict(each) for each in load(MEASURING).measure(file, manifest)]
