"""``edgefl export``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

import edgefl_converters
from edgefl.cli.output import Format, FormatOption, emit
from edgefl_converters.cli.arguments import CustomObjectsOption, announce, tensorflow
from edgefl_converters.cli.spelling import spelled_as_options

__all__ = ["export"]

_KERAS = "The Keras model"
_INFERENCE = "Inference models"


@spelled_as_options()
def export(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .tflite file made by `edgefl convert`.")],
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", help="model.keras; model.tflite for inference; weights.safetensors or weights.npz by name."
        ),
    ],
    weights: Annotated[
        Path | None,
        typer.Option(
            help="From `edgefl run weights`, or parameters by name (.npz, .safetensors); default: those in the file."
        ),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            help="The Keras model that the file was made from; for frozen or custom layers.", rich_help_panel=_KERAS
        ),
    ] = None,
    adapters: Annotated[
        str,
        typer.Option(help="LoRA adapters in a .keras file: merged into the weights, or kept.", rich_help_panel=_KERAS),
    ] = "merged",
    quantize: Annotated[
        str,
        typer.Option(
            help="Inference model: none, float16, dynamic (int8 weights) or int8.", rich_help_panel=_INFERENCE
        ),
    ] = "none",
    calibration: Annotated[
        str | None,
        typer.Option(
            help="For int8: rows of the inputs, as .npz, .npy or module:function.", rich_help_panel=_INFERENCE
        ),
    ] = None,
    custom_objects: CustomObjectsOption = None,
    format: FormatOption = Format.text,
) -> None:
    """Turn trained weights back into a .keras or an inference .tflite file, or save them by name."""
    announce(custom_objects)
    if calibration is not None and ":" in calibration and not Path(calibration).exists():
        announce([calibration.partition(":")[0]])
    with tensorflow():
        result = edgefl_converters.export(
            file,
            weights,
            out,
            base=base,
            adapters=adapters,
            quantize=quantize,
            calibration=calibration,
            custom_objects=custom_objects,
        )
    document = {"path": str(result.path), **result.report}
    emit(document, format, lambda: "\n".join(_lines(document)))


def _lines(document: Mapping[str, Any]) -> list[str]:
    lines = [f"wrote {document['path']}: {document['bytes']:,} bytes"]
    if "arrays" in document:
        lines[0] += f", {document['arrays']} arrays"
    if document.get("adapters") == "kept":
        lines.append(
            "  read it with edgefl.load_model: Keras alone sets kept adapters to zero, and then trains nothing"
        )
    if "agreement" in document:
        lines += _agreement(document)
    return lines


def _agreement(document: Mapping[str, Any]) -> list[str]:
    rows = document["agreement"]["rows"]
    calibrated = document["calibration_rows"]
    lines = [f"  {document['meaning']}" + ("" if calibrated is None else f"; calibrated on {calibrated} rows")]
    kind = "made-up rows" if calibrated is None else "of those rows"
    for runtime in document["agreement"]["runtimes"]:
        name = f"{runtime['name']} {runtime['version']}"
        if not runtime["ran"]:
            lines.append(f"  {name}: did not run: {runtime['reason']}")
            continue
        for output, off in runtime["outputs"].items():
            low, high = off["range"]
            same = f"; the same class in {off['same_class']:.1%}" if "same_class" in off else ""
            lines.append(
                f"  {name}: {output!r} is up to {off['largest']:.1e} from Keras's (mean {off['mean']:.1e}, "
                f"it lies between {low:.3g} and {high:.3g}) on {rows} {kind}{same}"
            )
    return lines
