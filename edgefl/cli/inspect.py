"""``edgefl inspect``: what is in a model file, read without an interpreter."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from edgefl.cli.output import Format, FormatOption, emit
from edgefl.model_file import ModelFile

__all__ = ["describe", "inspect"]


def inspect(
    file: Annotated[Path, typer.Argument(help="A .tflite file made by `edgefl convert`.")],
    format: FormatOption = Format.text,
) -> None:
    """Say what is in a model file: signatures, parameters, sizes, hashes; checks that it is intact."""
    model = ModelFile.read(file)
    model.verify()
    result = describe(model)
    emit(result, format, lambda: _text(str(file), result))


def describe(model: ModelFile) -> dict[str, Any]:
    """The content of a model file as plain values."""
    manifest = model.manifest
    layout = manifest.layout
    return {
        "bytes": len(model.data),
        "batch_size": manifest.batch_size,
        "mixes_rows": manifest.mixes_rows,
        "inputs": list(manifest.inputs),
        "outputs": list(manifest.outputs),
        "targets": [target.name for target in manifest.targets],
        "loss": _class_name(manifest.loss),
        "optimizer": _class_name(manifest.optimizer),
        "learning_rate": manifest.learning_rate,
        "metrics": [metric.name for metric in manifest.metrics],
        "signatures": {
            name: {
                "inputs": {spec.name: [spec.dtype, list(spec.shape)] for spec in signature.inputs},
                "outputs": {spec.name: [spec.dtype, list(spec.shape)] for spec in signature.outputs},
            }
            for name, signature in manifest.signatures.items()
        },
        "parameters": [
            {
                "name": parameter.name,
                "keras_path": parameter.keras_path,
                "shape": list(parameter.shape),
                "role": parameter.role,
                "shared": parameter.shared,
            }
            for parameter in manifest.parameters
        ],
        "frozen": list(manifest.frozen),
        "shared_elements": layout.size,
        "weight_elements": layout.weight_size,
        "statistic_elements": layout.statistic_size,
        "graph_hash": manifest.graph_hash,
        "layout_hash": manifest.layout_hash,
        "weights_hash": manifest.weights_hash,
        "producer": dict(manifest.producer),
    }


def _class_name(serialised: Any) -> Any:
    """The class of something that Keras serialised; what is not so serialised is shown as it is."""
    if isinstance(serialised, dict) and "class_name" in serialised:
        return serialised["class_name"]
    return serialised


def _text(file: str, result: dict[str, Any]) -> str:
    lines = [
        f"{file}: {result['bytes']:,} bytes, intact",
        f"  batch of {result['batch_size']} rows; {', '.join(result['inputs'])} -> {', '.join(result['outputs'])}",
        f"  loss {result['loss']}, {result['optimizer']} at learning rate {result['learning_rate']:g}, "
        f"metrics: {', '.join(result['metrics']) or 'none'}",
        f"  signatures: {', '.join(result['signatures'])}",
        f"  {result['weight_elements']:,} weights and {result['statistic_elements']:,} statistics travel, "
        f"{4 * result['shared_elements']:,} bytes as float32; {len(result['frozen'])} variables are frozen",
    ]
    width = max((len(parameter["name"]) for parameter in result["parameters"]), default=0)
    lines += [
        f"    {parameter['name']:{width}}  {parameter['role']:9}  "
        f"{'×'.join(map(str, parameter['shape'])) or 'scalar'}{'' if parameter['shared'] else '  local only'}"
        for parameter in result["parameters"]
    ]
    lines += [f"  {name} {result[f'{name}_hash']}" for name in ("graph", "layout", "weights")]
    return "\n".join(lines)
