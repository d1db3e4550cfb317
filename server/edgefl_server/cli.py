"""``edgefl server`` and ``edgefl run``: what operators type."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from edgefl.atomic import write_bytes
from edgefl.cli.output import Format, FormatOption, emit, progress
from edgefl.errors import HashMismatchError, InvalidSettingError, storage_error
from edgefl.hashing import sha256
from edgefl.model_file import ModelFile
from edgefl.wire.calls import ROUND
from edgefl_server import run_text, watching
from edgefl_server.aggregation import AUTO, choice_text
from edgefl_server.backup_verbs import backup, check, restore
from edgefl_server.continuing import More, continue_run, is_typed, number_of_rounds
from edgefl_server.fleet_verbs import devices
from edgefl_server.invitation_verbs import invitations, invite
from edgefl_server.operator_client import OperatorClient, run_path
from edgefl_server.people_verbs import audit, operators
from edgefl_server.run_verbs import RunArgument, ServerOption, StateOption, add_verbs, read_vector
from edgefl_server.setting_options import with_settings
from edgefl_server.start_verb import start
from edgefl_server.statistics_verb import statistics

if TYPE_CHECKING:
    pass

__all__ = ["run", "server"]

server = typer.Typer(
    help="Hand out work and merge what comes back.",
    add_completion=False,
    no_args_is_help=True,
)
run = typer.Typer(
    help="Create, watch and stop training runs.",
    add_completion=False,
    no_args_is_help=True,
)

_ROUNDS = "Rounds"


server.command()(start)


@run.command()
@with_settings
def create(
    model: Annotated[Path, typer.Argument(metavar="MODEL.tflite", help="A file made by `edgefl convert`.")],
    context: typer.Context,
    population: Annotated[str, typer.Option(help="Whose devices train.")],
    rounds: Annotated[
        int,
        typer.Option(
            parser=number_of_rounds,
            metavar="N|+N",
            help="How many rounds; +N: so many more for the run that this line has created, also when it is over.",
            rich_help_panel=_ROUNDS,
        ),
    ],
    target: Annotated[
        int | None,
        typer.Option(
            help="Outcomes that close a round.", show_default="needed, but for --rounds +N", rich_help_panel=_ROUNDS
        ),
    ] = None,
    name: Annotated[str, typer.Option(help="To be used instead of the id.")] = "",
    evaluate_on: Annotated[
        Path | None,
        typer.Option(
            metavar="DATA.npz",
            help="The server evaluates versions on it too, as often as devices do, or else after every round.",
            rich_help_panel="Evaluation and statistics",
        ),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(
            help="Begin with these, a .npy as `edgefl run weights` writes it.", show_default="the model file's own"
        ),
    ] = None,
    state: StateOption = None,
    server: ServerOption = None,
    format: FormatOption = Format.text,
    **settings: Any,
) -> None:
    """Create a run: devices of the population begin at once, as far as older runs of it have no place for them."""
    settings["target"] = target
    if target is None and not isinstance(rounds, More):
        raise typer.BadParameter("a new run needs it", param_hint="--target")
    data = _read(model)
    client = OperatorClient.find(state, server)
    initial = "" if weights is None else client.upload("/v1/initial-weights", {}, read_vector(weights))["weights_hash"]
    held = "" if evaluate_on is None else client.upload("/v1/data", {}, _read(evaluate_on))["data"]
    if isinstance(rounds, More):
        if weights is not None:
            raise typer.BadParameter("a run that goes on has its own", param_hint="--weights")
        if evaluate_on is not None:
            raise typer.BadParameter("a run that goes on has its own", param_hint="--evaluate-on")
        typed = {each: value for each, value in settings.items() if is_typed(context, each)}
        status = continue_run(client, data, population, name, rounds, typed)
    else:
        given = {"weights": initial, "evaluate_on": held}
        query = {"population": population, "name": name, "rounds": rounds, **given, **settings}
        status = client.upload("/v1/runs", query, data)
    settled = status["settings"]
    for line in run_text.troubles(status):
        progress(line)
    if settings["codec"] == AUTO and not isinstance(rounds, More):
        progress(choice_text(settled["codec"], ModelFile(data).manifest.layout.weight_size))
    emit(
        status,
        format,
        lambda: (
            f"run {status['run']}: {run_text.counted(settled['rounds'], 'round')} of "
            f"{run_text.counted(settled['target'], 'outcome')} from {population}"
        ),
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise storage_error(error, "read", path) from error


@run.command()
def status(
    run_id: RunArgument, state: StateOption = None, server: ServerOption = None, format: FormatOption = Format.text
) -> None:
    """Say how a run goes, round by round."""
    result = OperatorClient.find(state, server).get(run_path(run_id))
    emit(result, format, lambda: run_text.status(result))


@run.command()
def watch(
    run_id: RunArgument, state: StateOption = None, server: ServerOption = None, format: FormatOption = Format.text
) -> None:
    """Follow a run to its end; exits with 53 when it fails."""
    result = watching.watch(OperatorClient.find(state, server), run_id, progress)
    emit(result, format, lambda: run_text.status(result, rounds=False))
    watching.require_success(result)


add_verbs(run)
server.command()(invite)
server.add_typer(devices, name="devices")
server.add_typer(invitations, name="invitations")
server.add_typer(operators, name="operators")
server.command()(audit)
for verb in (backup, restore, check):
    server.command()(verb)


@run.command("list")
def list_runs(state: StateOption = None, server: ServerOption = None, format: FormatOption = Format.text) -> None:
    """List all runs, oldest first."""
    result = OperatorClient.find(state, server).get("/v1/runs")
    emit(result, format, lambda: run_text.runs(result))


@run.command()
def stop(
    run_id: RunArgument, state: StateOption = None, server: ServerOption = None, format: FormatOption = Format.text
) -> None:
    """Stop a run; what its open round has collected is discarded."""
    result = OperatorClient.find(state, server).post(run_path(run_id, "stop"))
    emit(result, format, lambda: run_text.status(result))


run.command()(statistics)


@run.command()
def weights(
    run_id: RunArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="A .npy file: the flat float32 vector.")],
    round: Annotated[
        int | None, typer.Option(help="After which round; 0: the initial ones.", show_default="the latest")
    ] = None,
    state: StateOption = None,
    server: ServerOption = None,
    format: FormatOption = Format.text,
) -> None:
    """Fetch a run's weights; `edgefl export MODEL.tflite --weights FILE` makes a model of them."""
    if output.suffix != ".npy":
        raise InvalidSettingError(f"--output expects a name that ends in .npy, got {output}.")
    query = "" if round is None else f"?round={round}"
    data, headers = OperatorClient.find(state, server).download(run_path(run_id, "weights") + query)
    digest = headers.get("ETag", "").strip('"')
    if sha256(data) != digest:
        raise HashMismatchError(
            f"The weights of run {run_id} are damaged: their hash should be {digest}, got {sha256(data)}.",
            hint="On the server's disk if it happens again; other rounds may be intact: give --round.",
        )
    vector = np.frombuffer(data, "<f4")
    buffer = io.BytesIO()
    np.save(buffer, vector)
    write_bytes(output, buffer.getvalue())
    result = {
        "file": str(output),
        "run": run_id,
        "round": int(headers.get(ROUND, "0")),
        "elements": int(vector.size),
        "weights_hash": digest,
    }
    emit(result, format, lambda: f"{output}: {vector.size:,} elements after round {result['round']}")
