"""``edgefl data``: look at data, at who holds what of it, and at what devices would say of it, before any training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from edgefl.cli.output import Format, FormatOption, emit, progress
from edgefl.model_file import ModelFile
from edgefl_device_runtime.tasks import MINIMUM_EXAMPLES
from edgefl_server import statistics_text
from edgefl_server.aggregation import SettingError
from edgefl_server.aggregation.kinds import SHOWN_FROM
from edgefl_server.option_names import option_of
from edgefl_simulation.column_options import Devices, FeatureColumns, HeldOut, TargetColumn, listed
from edgefl_simulation.data import KINDS, NAMED, OWNER
from edgefl_simulation.holdings.device_files import HELD_OUT, PARTITION
from edgefl_simulation.holdings.picture import FORMATS, write_picture
from edgefl_simulation.holdings.text import as_text
from edgefl_simulation.partitioned import Partitioned, partition_data
from edgefl_simulation.partitioning import PARTITIONERS
from edgefl_simulation.summing_up import federated_statistics

__all__ = ["data"]

data = typer.Typer(
    help="Divide data among devices, see who holds what, and sum it up.",
    add_completion=False,
    no_args_is_help=True,
)

Owner = Annotated[str, typer.Option(help="The array or column that says whose each row is.")]
Label = Annotated[str, typer.Option(help="The array that a partition by class goes by.", show_default="the target")]
Seed = Annotated[int, typer.Option(help="Of every choice; that of `edgefl simulate` gives its partition.")]


@data.command("partition")
def partition_verb(
    source: Annotated[str, typer.Argument(metavar="DATA", help=f"{', '.join(NAMED)}; or {KINDS}.")],
    partition: Annotated[
        str, typer.Option(help=f"Who holds what: {', '.join(PARTITIONERS.names())}; as in dirichlet:0.5.")
    ] = "iid",
    devices: Devices = None,
    plot: Annotated[Path | None, typer.Option(help=f"Draw it: .{', .'.join(FORMATS)}.", metavar="FILE")] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FOLDER", help="A file for each device, for `edgefl device run --data`."),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A .tflite: rows get its shape, and have to fit.", show_default=False),
    ] = None,
    held_out: HeldOut = 0.1,
    owner: Owner = OWNER,
    feature_columns: FeatureColumns = "",
    target_column: TargetColumn = "",
    label: Label = "",
    seed: Seed = 1,
    format: FormatOption = Format.text,
) -> None:
    """Divide a data set among devices as `edgefl simulate` does: a table, a picture, a file for each device."""
    try:
        found = partition_data(
            source,
            devices=devices or 0,
            partition=partition,
            seed=seed,
            held_out=held_out,
            label=label,
            owner=owner,
            feature_columns=listed(feature_columns),
            target_column=target_column,
            manifest=None if model is None else ModelFile.read(model).manifest,
        )
    except SettingError as error:
        raise error.naming(option_of) from error
    if plot is not None:
        write_picture(found.holdings, f"{source}: {partition}, {len(found.divided.names):,} devices", plot)
    files = [] if out is None else found.write(out)
    emit(_result(found, plot, files), format, lambda: _text(found, plot, out, files))


@data.command("statistics")
def statistics_verb(
    source: Annotated[str, typer.Argument(metavar="DATA", help=f"{', '.join(NAMED)}; or {KINDS}.")],
    model: Annotated[
        str, typer.Option(help="What a row is: a .tflite; or a .keras file or module:function to convert.")
    ],
    partition: Annotated[
        str, typer.Option(help=f"Who holds what: {', '.join(PARTITIONERS.names())}; as in dirichlet:0.5.")
    ] = "iid",
    devices: Devices = None,
    out: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="A .json file, for `edgefl convert --normalization`."),
    ] = None,
    held_out: HeldOut = 0.1,
    owner: Owner = OWNER,
    feature_columns: FeatureColumns = "",
    target_column: TargetColumn = "",
    label: Label = "",
    minimum_examples: Annotated[int, typer.Option(help="A device with fewer takes no part.", min=1)] = MINIMUM_EXAMPLES,
    shown_from: Annotated[int, typer.Option(help="Statistics are of at least so many devices.", min=1)] = SHOWN_FROM,
    seed: Seed = 1,
    format: FormatOption = Format.text,
) -> None:
    """Sum up data that is divided among devices, as a run of the kind statistics does: nobody's rows are pooled."""
    try:
        found = federated_statistics(
            model,
            source,
            devices=devices or 0,
            partition=partition,
            seed=seed,
            held_out=held_out,
            label=label,
            owner=owner,
            feature_columns=listed(feature_columns),
            target_column=target_column,
            minimum_examples=minimum_examples,
            shown_from=shown_from,
            out=out,
            tell=progress,
        )
    except SettingError as error:
        raise error.naming(option_of) from error
    result = {"file": None if out is None else str(out), **found}
    emit(result, format, lambda: statistics_text.table(result))


def _result(found: Partitioned, plot: Path | None, files: list[Path]) -> dict[str, Any]:
    holdings = found.holdings
    classes = holdings.classes
    return {
        "figures": holdings.figures(),
        "held_out": found.held_out,
        "left_over": found.left_over,
        "devices": {
            name: {"rows": int(size)} | ({"classes": dict(zip(classes, row, strict=True))} if classes else {})
            for name, size, row in zip(holdings.names, holdings.sizes, holdings.counts.tolist(), strict=True)
        },
        "picture": None if plot is None else str(plot),
        "files": [str(file) for file in files],
    }


def _text(found: Partitioned, plot: Path | None, out: Path | None, files: list[Path]) -> str:
    lines = [as_text(found.holdings), f"held out        {found.held_out:,} rows that no device holds"]
    if found.left_over:
        lines.append(f"left over       {found.left_over:,} rows that lie nowhere")
    if plot is not None:
        lines.append(f"drawn           {plot}")
    if out is not None:
        tests = f", {HELD_OUT}" if found.held_out else ""
        lines.append(f"written         {len(files):,} files of devices{tests}, {PARTITION} in {out}")
        lines.append(f"next            edgefl device run --data {files[0]} …")
    return "\n".join(lines)
