"""``edgefl convert``, ``verify`` and ``export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

import edgefl_converters
from edgefl.cli.output import Format, FormatOption, emit, progress
from edgefl_converters.quiet import import_tensorflow_quietly

__all__ = ["convert"]

_MODEL = "A .keras file, or module:function that returns a Keras model."


def convert(
    model: Annotated[str, typer.Argument(help=_MODEL)],
    out: Annotated[Path, typer.Option("--out", "-o", help="The .tflite file to write.")],
    loss: Annotated[str | None, typer.Option(help="Keras loss by name; default: as the model is compiled.")] = None,
    optimizer: Annotated[str | None, typer.Option(help="Keras optimizer by name; default: as compiled.")] = None,
    metric: Annotated[list[str] | None, typer.Option(help="Keras metric by name; may be repeated.")] = None,
    batch_size: Annotated[int, typer.Option(help="Rows of every batch; fixed in the file.")] = 32,
    verify: Annotated[
        bool, typer.Option(help="Train the file beside Keras on every installed runtime before writing it.")
    ] = True,
    format: FormatOption = Format.text,
) -> None:
    """Turn a Keras model into a .tflite file that trains, with builtin TFLite ops only."""
    _start()
    result = edgefl_converters.convert(
        model,
        out,
        loss=loss,
        optimizer=optimizer,
        metrics=metric or None,
        batch_size=batch_size,
        verify=verify,
        on_progress=progress,
    )
    document: dict[str, Any] = {"path": str(result.path), **result.report}
    emit(document, format, lambda: f"wrote {result.path}: {document['bytes']:,} bytes")


def _start() -> None:
    edgefl_converters.require_tensorflow()
    import_tensorflow_quietly()
