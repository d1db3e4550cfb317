"""``edgefl server`` and ``edgefl run``: what operators type."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from edgefl.atomic import write_bytes
from edgefl.cli.output import Format, FormatOption, emit, progress
from edgefl.errors import HashMismatchError, InvalidSettingError, StorageError, storage_error
from edgefl.hashing import sha256
from edgefl.model_file import ModelFile
from edgefl.parts import Part, needing
from edgefl.wire.calls import ROUND
from edgefl_server import log_lines, run_text, watching
from edgefl_server.aggregation import AUTO, choice_text
from edgefl_server.backup_verbs import backup, check, restore
from edgefl_server.continuing import More, continue_run, is_typed, number_of_rounds
from edgefl_server.fleet_verbs import devices
from edgefl_server.invitation_verbs import invitations, invite
from edgefl_server.operator_client import OperatorClient, run_path
from edgefl_server.operator_file import OperatorFile
from edgefl_server.option_names import option_of
from edgefl_server.people_verbs import audit, operators
from edgefl_server.run_verbs import RunArgument, ServerOption, StateOption, add_verbs, read_vector
from edgefl_server.setting_options import with_settings
from edgefl_server.state_folder import SHOWN, state_folder
from edgefl_server.statistics_verb import statistics

if TYPE_CHECKING:
    from edgefl_server.storage import ServerState

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

_LISTENING = "Who can reach it"
_LIMITS = "Limits"

_ROUNDS = "Rounds"


@server.command()
def start(
    state: Annotated[
        Path | None, typer.Option("--state", help="Folder for everything that the server keeps.", show_default=SHOWN)
    ] = None,
    database: Annotated[
        str | None,
        typer.Option(
            help="Keep rows in PostgreSQL: postgresql://USER@HOST/NAME, the password in PGPASSWORD or ~/.pgpass.",
            envvar="EDGEFL_DATABASE",
            show_default="a file of SQLite's in the folder",
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Name or address to listen on.", rich_help_panel=_LISTENING)] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(help="Port to listen on; 0 for a free one.", min=0, max=65535, rich_help_panel=_LISTENING)
    ] = 8470,
    certificate: Annotated[Path | None, typer.Option(help="TLS certificate, PEM.", rich_help_panel=_LISTENING)] = None,
    private_key: Annotated[Path | None, typer.Option(help="Its private key, PEM.", rich_help_panel=_LISTENING)] = None,
    next_certificate: Annotated[
        Path | None,
        typer.Option(help="The one that it is going to have, PEM: devices learn it.", rich_help_panel=_LISTENING),
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Allow other machines without TLS.", rich_help_panel=_LISTENING)
    ] = False,
    max_outcome_bytes: Annotated[
        int, typer.Option(help="Larger outcomes are refused.", min=1, rich_help_panel=_LIMITS)
    ] = 256 << 20,
    max_connections: Annotated[
        int,
        typer.Option(
            help="More are turned away.",
            min=0,
            show_default="half of the open files, at most 16384",
            rich_help_panel=_LIMITS,
        ),
    ] = 0,
    device_rate: Annotated[
        int, typer.Option(help="Requests a minute of one device; 0: any number.", min=0, rich_help_panel=_LIMITS)
    ] = 3000,
    address_rate: Annotated[
        int,
        typer.Option(help="Refused requests a minute of one address; 0: any number.", min=0, rich_help_panel=_LIMITS),
    ] = 1000,
    trusted_proxies: Annotated[
        str,
        typer.Option(
            help="Addresses and networks whose X-Forwarded-For is believed.",
            show_default="none",
            rich_help_panel=_LISTENING,
        ),
    ] = "",
    keep_days: Annotated[
        float,
        typer.Option(
            help="Days that outcomes of failed and stopped rounds are kept; 0: not at all.",
            min=0,
            rich_help_panel=_LIMITS,
        ),
    ] = 7.0,
    format: FormatOption = Format.text,
) -> None:
    """Start a server; SIGTERM or Ctrl-C stops it, and the same line starts it again where it was."""
    # The web framework and the database are not needed by the verbs that only call a server.
    from edgefl_server.http import Address, create_app, serve
    from edgefl_server.http.rates import networks
    from edgefl_server.http.serving import listen
    from edgefl_server.storage import sweep_outcomes

    state = state_folder(state)
    log_lines.start()
    address = Address(host, port, certificate, private_key, insecure, next_certificate)
    address.check()
    pins, next_pins = address.pins(), address.next_pins()
    proxies = networks([each for each in trusted_proxies.split(",") if each.strip()])
    OperatorFile.token(state)  # a damaged one is refused before anything else is opened
    with _private_files(), closing(_opened(state, keep_days, database)) as kept:
        token = OperatorFile.token(state)
        listener = listen(address)
        url = address.url(listener.getsockname()[1])
        _tell_operators(OperatorFile(url, token, *pins, *next_pins), state)
        swept = sweep_outcomes(kept)
        if swept.orphans:
            progress(
                f"{run_text.counted(swept.orphans, 'file')} that the database does not know lay among the outcomes; "
                f"look in {kept.orphans}."
            )
        app = create_app(
            kept,
            token,
            max_outcome_bytes=max_outcome_bytes,
            pins=address.announcement(),
            device_rate=device_rate,
            address_rate=address_rate,
            trusted_proxies=proxies,
        )
        result = {
            "url": url,
            "state": str(state),
            "pid": os.getpid(),
            "certificate_pin": pins[0],
            "public_key_pin": pins[1],
        }

        def ready() -> None:
            if format is Format.json:
                emit_line(json.dumps(result))
            else:
                emit_line(
                    f"edgefl server at {url}; invite devices with: "
                    f"edgefl server invite --state {state} --population NAME"
                )

        serve(app, address, listener, ready, max_connections)


def _opened(folder: Path, keep_days: float, database: str | None) -> ServerState:
    """The state in a folder; a setting that it refuses is named as the option that it was given by."""
    from edgefl_server.aggregation import SettingError
    from edgefl_server.storage import ServerState

    try:
        with needing(Part("edgefl_server.storage", "postgresql")):
            return ServerState(folder, keep_days=keep_days, database=database)
    except SettingError as error:
        raise error.naming(option_of) from error


def _tell_operators(file: OperatorFile, state: Path) -> None:
    """Writes `operator.json`; on a full disk the one of the last start will do, whose token is the same."""
    try:
        file.write(state)
    except StorageError as error:
        if not (error.full and OperatorFile.exists(state)):
            raise
        progress(f"{error.message} Commands with --state use the address of the last start until the next one.")


@contextmanager
def _private_files() -> Iterator[None]:
    """Weights and updates are nobody else's business on this machine."""
    umask = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(umask)


def emit_line(line: str) -> None:
    """One line to standard output at once, also into a pipe, for those who wait for it."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


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
