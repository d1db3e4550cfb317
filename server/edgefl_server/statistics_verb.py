"""``edgefl run statistics``: what a fleet's data is like, all together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from edgefl.atomic import write_text
from edgefl.cli.output import Format, FormatOption, emit
from edgefl_server import statistics_text
from edgefl_server.operator_client import OperatorClient, run_path
from edgefl_server.state_folder import SHOWN

__all__ = ["statistics"]


def statistics(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="The run's id or name.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A .json file, for `edgefl convert --normalization`.")
    ] = None,
    state: Annotated[
        Path | None, typer.Option("--state", help="State folder of a server on this machine.", show_default=SHOWN)
    ] = None,
    server: Annotated[
        str | None, typer.Option("--server", help="URL of a server; the key is taken from EDGEFL_OPERATOR_KEY.")
    ] = None,
    format: FormatOption = Format.text,
) -> None:
    """Show what a run of the kind statistics found in its devices' data, all together."""
    status = OperatorClient.find(state, server).get(run_path(run_id))
    found = statistics_text.latest(status)
    if output is not None:
        write_text(output, json.dumps(found, indent=1) + "\n")
    result = {"run": status["run"], "file": None if output is None else str(output), **found}
    emit(result, format, lambda: statistics_text.table(result))
