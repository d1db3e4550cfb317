"""``edgefl convert`` and ``verify``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

import edgefl_converters
from edgefl.algorithms import ALGORITHMS
from edgefl.cli.output import Format, FormatOption, emit, progress
from edgefl.errors import EdgeflError, InvalidSettingError
from edgefl.targets import ALL, TARGETS
from edgefl_converters.blame.layer_tables import as_table
from edgefl_converters.cli.arguments import (
    MODEL,
    CustomObjectsOption,
    announce,
    parse_batch_sizes,
    parse_shapes,
    tensorflow,
)
from edgefl_converters.cli.spelling import spelled_as_options
from edgefl_converters.settings.fine_tuning import FineTuning
from edgefl_converters.stages import OTHER, measured_stages, stage
from edgefl_converters.verification.evidence import Evidence
from edgefl_converters.verification.storage_report import StorageCost

__all__ = ["convert", "verify"]

_COMPILED = "How the model is compiled"
_SHAPES = "Batches and shapes"
_TRAINED = "What is trained"
_FEDERATED = "Federated learning"
_CHECKED = "Checks"


@spelled_as_options()
def convert(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL)],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The .tflite file to write; may be left out with --explain.")
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option(help="Keras loss by name; default: as the model is compiled.", rich_help_panel=_COMPILED),
    ] = None,
    optimizer: Annotated[
        str | None, typer.Option(help="Keras optimizer by name; default: as compiled.", rich_help_panel=_COMPILED)
    ] = None,
    metric: Annotated[
        list[str] | None, typer.Option(help="Keras metric by name; may be repeated.", rich_help_panel=_COMPILED)
    ] = None,
    batch_size: Annotated[
        str,
        typer.Option(
            help="Rows of every batch; fixed in the file. Several, 1,8,32: a device takes the smallest that fits.",
            rich_help_panel=_SHAPES,
        ),
    ] = "32",
    micro_batch: Annotated[
        int | None,
        typer.Option(
            help="Compute so many rows of a batch at a time: the same step in less memory.", rich_help_panel=_SHAPES
        ),
    ] = None,
    input_shape: Annotated[
        list[str] | None,
        typer.Option(
            help="Shape of an input without the batch, where the model leaves it open: 100,6 or name=100,6.",
            rich_help_panel=_SHAPES,
        ),
    ] = None,
    target_shape: Annotated[
        list[str] | None,
        typer.Option(
            help="Shape of a row of the targets, where a loss of your own takes others than the output's: 2 or name=2.",
            rich_help_panel=_SHAPES,
        ),
    ] = None,
    trainable: Annotated[
        list[str] | None,
        typer.Option(
            help="Train only what this pattern matches: a layer, its class or a weight; may be repeated.",
            rich_help_panel=_TRAINED,
        ),
    ] = None,
    frozen: Annotated[
        list[str] | None,
        typer.Option(help="Do not train what this pattern matches; may be repeated.", rich_help_panel=_TRAINED),
    ] = None,
    last_layers: Annotated[
        int | None, typer.Option(help="Train only so many layers, counted from the output.", rich_help_panel=_TRAINED)
    ] = None,
    biases_only: Annotated[
        bool, typer.Option("--biases-only", help="Train only biases.", rich_help_panel=_TRAINED)
    ] = False,
    lora_rank: Annotated[
        int | None,
        typer.Option(help="Train low-rank adapters of this rank instead of the weights.", rich_help_panel=_TRAINED),
    ] = None,
    lora_target: Annotated[
        list[str] | None,
        typer.Option(
            help="Only layers that this pattern matches get adapters; may be repeated.", rich_help_panel=_TRAINED
        ),
    ] = None,
    lora_alpha: Annotated[
        float | None, typer.Option(help="Adapters count alpha / rank times; default: once.", rich_help_panel=_TRAINED)
    ] = None,
    local: Annotated[
        list[str] | None,
        typer.Option(
            help="What this pattern matches never leaves a device; may be repeated.", rich_help_panel=_FEDERATED
        ),
    ] = None,
    algorithm: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Support {', '.join(ALGORITHMS[:-1])} or {ALGORITHMS[-1]}; may be repeated.",
            rich_help_panel=_FEDERATED,
        ),
    ] = None,
    normalization: Annotated[
        Path | None,
        typer.Option(
            help="Statistics of the fleet's data, from `edgefl run statistics`, for Normalization layers at inputs; or "
            "'identity', for a file to ask with.",
            rich_help_panel=_FEDERATED,
        ),
    ] = None,
    quantize_frozen: Annotated[
        str | None,
        typer.Option(
            help="Store large frozen weights as float16 or int8; int8-dynamic computes with them in int8 too. What is "
            "trained stays float32.",
            rich_help_panel=_TRAINED,
        ),
    ] = None,
    target: Annotated[
        str,
        typer.Option(
            help=f"Runtimes that must be able to run the file: {', '.join(TARGETS)} or {ALL}.", rich_help_panel=_CHECKED
        ),
    ] = ALL,
    verify: Annotated[
        bool,
        typer.Option(
            help="Train the file beside Keras on every installed runtime before writing it.", rich_help_panel=_CHECKED
        ),
    ] = True,
    explain: Annotated[
        bool,
        typer.Option(
            "--explain",
            help="List what each layer was lowered to; without -o nothing is written.",
            rich_help_panel=_CHECKED,
        ),
    ] = False,
    verbose: Annotated[
        bool,
        typer.Option("--verbose", help="Say how many seconds each stage took, also where the model is refused."),
    ] = False,
    custom_objects: CustomObjectsOption = None,
    format: FormatOption = Format.text,
) -> None:
    """Turn a Keras model into a .tflite file that trains, with builtin TFLite ops only."""
    shapes = parse_shapes(input_shape, "input") if input_shape else None
    if out is None and not explain:
        raise InvalidSettingError(
            "There is no place to write the file.", hint="Give -o model.tflite, or --explain to only list the layers."
        )
    given: dict[str, Any] = {
        "loss": loss,
        "optimizer": optimizer,
        "metrics": metric or None,
        "batch_size": parse_batch_sizes(batch_size),
        "input_shape": shapes,
        "target_shape": parse_shapes(target_shape, "target") if target_shape else None,
        "fine_tuning": FineTuning(
            trainable=trainable or (),
            frozen=frozen or (),
            last_layers=last_layers,
            biases_only=biases_only,
            lora_rank=lora_rank,
            lora_targets=lora_target or ("*",),
            lora_alpha=lora_alpha,
        ),
        "local": local or (),
        "algorithms": algorithm or (),
        "quantize_frozen": quantize_frozen,
        "target": target,
        "micro_batch": micro_batch,
        "custom_objects": announce(custom_objects),
    }
    layers: dict[str, Any] = {}
    try:
        with _told_seconds(verbose), ExitStack() as stack:
            with stage("importing TensorFlow"):
                stack.enter_context(tensorflow())
            if out is None:
                edgefl_converters.explain(model, **given, on_layers=layers.update)
            else:
                result = edgefl_converters.convert(
                    model,
                    out,
                    **given,
                    normalization=normalization,
                    verify=verify,
                    on_progress=progress,
                    on_layers=layers.update,
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
                *_storage(document.get("quantize_frozen")),
                *_evidence(document["evidence"]),
            ]
        ),
    )


@spelled_as_options()
def verify(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .tflite file made by `edgefl convert`.")],
    against: Annotated[str, typer.Option(help=MODEL)],
    custom_objects: CustomObjectsOption = None,
    format: FormatOption = Format.text,
) -> None:
    """Train a model file beside its Keras model on every installed runtime, and compare."""
    announce(custom_objects)
    with tensorflow():
        report = edgefl_converters.verify(file, against, custom_objects=custom_objects).as_json()
    emit(
        {"path": str(file), **report},
        format,
        lambda: "\n".join([f"{file} agrees with {against}", *_figures(report), *_evidence(report["evidence"])]),
    )


@contextmanager
def _told_seconds(verbose: bool) -> Iterator[None]:
    """Says at the end how long each stage of what runs inside took, if that is wanted."""
    with measured_stages() as stages:
        try:
            yield
        finally:
            stages.enter(OTHER)
            if verbose:
                for line in (f"took {sum(stages.seconds.values()):.1f} s", *str(stages).splitlines()):
                    progress(line)


def _emit_layers(layers: dict[str, Any], format: Format, *, converted: bool) -> None:
    last = [] if converted else ["the conversion failed; the layers above were reached or have no ops yet"]
    emit({"converted": converted, "layers": layers}, format, lambda: "\n".join([as_table(layers), *last]))


def _figures(verification: dict[str, Any] | None) -> list[str]:
    """One line for each runtime: how much agreed, and how close the worst of it came to its limit."""
    if verification is None:
        return ["  not verified"]
    lines = []
    for runtime in verification["runtimes"]:
        name = f"{runtime['name']} {runtime['version']}"
        if not runtime["ran"]:
            lines.append(f"  {name}: did not run: {runtime['reason']}")
            continue
        used = {kind: each["error"] / each["limit"] for kind, each in runtime["worst"].items() if each["limit"]}
        closest = max(used, key=lambda kind: used[kind], default="")
        how = f"; the worst takes {used[closest]:.0%} of what is allowed ({closest})" if used else ""
        lines.append(f"  {name}: {len(runtime['comparisons'])} figures agree{how}")
    return lines


def _evidence(evidence: list[dict[str, str]]) -> list[str]:
    """One line for each target: which runtime really ran, or that only the table of its ops was looked at."""
    return [f"  target {Evidence(**each)}" for each in evidence]


def _storage(storage: dict[str, Any] | None) -> list[str]:
    if storage is None:
        return []
    first = f"  frozen weights stored as {storage['storage']}: {storage['float32_bytes']:,} bytes in float32"
    return [first, *(f"    {StorageCost(**each)}" for each in storage["runtimes"])]
