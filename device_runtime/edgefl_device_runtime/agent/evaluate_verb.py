"""``edgefl evaluate``: how good a model, or weights that a fleet has trained, are on data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgefl.cli.output import Format, FormatOption, emit
from edgefl.native_stderr import native_stderr_held
from edgefl.targets import RUNTIMES
from edgefl_device_runtime.agent.local_data import evaluate_data

__all__ = ["evaluate"]


def evaluate(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .tflite file made by `edgefl convert`.")],
    data: Annotated[str, typer.Option(help="An .npz file, a folder of .npy files, a .csv file, or module:function.")],
    weights: Annotated[
        Path | None,
        typer.Option(
            help="From `edgefl run weights`, or parameters by name (.npz, .safetensors).",
            show_default="those in the file",
        ),
    ] = None,
    runtime: Annotated[str, typer.Option(help=f"The interpreter: auto, {' or '.join(RUNTIMES)}.")] = "auto",
    format: FormatOption = Format.text,
) -> None:
    """Measure loss and metrics of a model file, or of trained weights, on data; needs no TensorFlow."""
    result = {"file": str(file), "weights": None if weights is None else str(weights), "data": data}
    with native_stderr_held():
        found = evaluate_data(file, data, weights, runtime=runtime)
    values = ", ".join(f"{name} {value:.4f}" for name, value in found["metrics"].items())
    emit(
        {**result, **found},
        format,
        lambda: f"{weights or file} on {found['examples']:,} examples of {data}: {values}",
    )
