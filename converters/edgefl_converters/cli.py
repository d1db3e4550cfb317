"""``edgefl convert`` and ``verify``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

import edgefl_converters
from edgefl.cli.output import Format, FormatOption, emit, progress
from edgefl.errors import EdgeflError, InvalidSettingError
from edgefl_converters.cli_options import MODEL, CustomObjectsOption, announce, tensorflow
from edgefl_converters.input_shapes import parse_input_shapes
from edgefl_converters.layer_tables import as_table

__all__ = ["convert", "verify"]


def convert(
    model: Annotated[str, typer.Argument(help=MODEL)],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The .tflite file to write; may be left out with --explain.")
    ] = None,
    loss: Annotated[str | None, typer.Option(help="Keras loss by name; default: as the model is compiled.")] = None,
    optimizer: Annotated[str | None, typer.Option(help="Keras optimizer by name; default: as compiled.")] = None,
    metric: Annotated[list[str] | None, typer.Option(help="Keras metric by name; may be repeated.")] = None,
    batch_size: Annotated[int, typer.Option(help="Rows of every batch; fixed in the file.")] = 32,
    input_shape: Annotated[
        list[str] | None,
        typer.Option(help="Shape of an input without the batch, where the model leaves it open: 100,6 or name=100,6."),
    ] = None,
    verify: Annotated[
        bool, typer.Option(help="Train the file beside Keras on every installed runtime before writing it.")
    ] = True,
    explain: Annotated[
        bool, typer.Option("--explain", help="List what each layer was lowered to; without -o nothing is written.")
    ] = False,
    custom_objects: CustomObjectsOption = None,
    format: FormatOption = Format.text,
) -> None:
    """Turn a Keras model into a .tflite file that trains, with builtin TFLite ops only."""
    shapes = parse_input_shapes(input_shape) if input_shape else None
    if out is None and not explain:
        raise InvalidSettingError(
            "There is no place to write the file.", hint="Give -o model.tflite, or --explain to only list the layers."
        )
    given: dict[str, Any] = {
        "loss": loss,
        "optimizer": optimizer,
        "metrics": metric or None,
        "batch_size": batch_size,
        "input_shape": shapes,
        "custom_objects": announce(custom_objects),
    }
    layers: dict[str, Any] = {}
    try:
        with tensorflow():
            if out is None:
                edgefl_converters.explain(model, **given, on_layers=layers.update)
            else:
                result = edgefl_converters.convert(
                    model, out, **given, verify=verify, on_progress=progress, on_layers=layers.update
                )
    except EdgeflError:
        if explain and layers:
            _emit_layers(layers, format, converted=False)
        raise
    if out is None:
        _emit_layers(layers, format, converted=True)
        return
    document: dict[str, Any] = {"path": str(result.path), **result.report}
    emit(
        document,
        format,
        lambda: "\n".join(
            [
                *([as_table(layers)] if explain else []),
                f"wrote {result.path}: {document['bytes']:,} bytes",
                *_figures(document["verification"]),
            ]
        ),
    )


def verify(
    file: Annotated[Path, typer.Argument(help="A .tflite file made by `edgefl convert`.")],
    against: Annotated[str, typer.Option(help=MODEL)],
    custom_objects: CustomObjectsOption = None,
    format: FormatOption = Format.text,
) -> None:
    """Train a model file beside its Keras model on every installed runtime, and compare."""
    announce(custom_objects)
    with tensorflow():
        report = edgefl_converters.verify(file, against, custom_objects=custom_objects).as_json()
    emit({"path": str(file), **report}, format, lambda: "\n".join([f"{file} agrees with {against}", *_figures(report)]))


def _emit_layers(layers: dict[str, Any], format: Format, *, converted: bool) -> None:
    last = [] if converted else ["the conversion failed; the layers above were reached or have no ops yet"]
    emit({"converted": converted, "layers": layers}, format, lambda: "\n".join([as_table(layers), *last]))


def _figures(verification: dict[str, Any] | None) -> list[str]:
    """One line for each runtime: what agreed, and which figure came closest to its limit."""
    if verification is None:
        return ["  not verified"]
    lines = []
    for runtime in verification["runtimes"]:
        name = f"{runtime['name']} {runtime['version']}"
        if not runtime["ran"]:
            lines.append(f"  {name}: did not run: {runtime['reason']}")
            continue
        worst = runtime["worst"]
        parts = [
            f"{kind} {worst[kind]['error']:.1e} of {worst[kind]['limit']:.1e}" for kind in worst if worst[kind]["limit"]
        ]
        lines.append(
            f"  {name}: {len(runtime['comparisons'])} figures agree; closest to their limits: {', '.join(parts)}"
        )
    return lines
