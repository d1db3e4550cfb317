"""``edgefl server start``: opens the state folder, listens, and serves until it is told to stop."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgefl.cli.output import Format, FormatOption, emit, progress
from edgefl.errors import StorageError
from edgefl.parts import Part, needing
from edgefl_server import log_lines, run_text
from edgefl_server.log_lines import LogFormat
from edgefl_server.operator_file import OperatorFile
from edgefl_server.option_names import option_of
from edgefl_server.state_folder import SHOWN, state_folder

if TYPE_CHECKING:
    from edgefl_server.storage import ServerState

__all__ = ["start"]

_LISTENING = "Who can reach it"
_LIMITS = "Limits"
_LOG = "Log and alarms"


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
    metrics_public: Annotated[
        bool,
        typer.Option(
            "--metrics-public", help="Let everybody read /metrics, not only operators.", rich_help_panel=_LISTENING
        ),
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
    alarm_webhook: Annotated[
        str,
        typer.Option(
            metavar="URL",
            help="Alarms are sent there as JSON: a run is stuck, the fleet is gone, refusals rise, the disk is low.",
            show_default="none",
            rich_help_panel=_LOG,
        ),
    ] = "",
    log_format: Annotated[
        LogFormat, typer.Option(help="Lines for people, or an object a line with ids.", rich_help_panel=_LOG)
    ] = LogFormat.text,
    format: FormatOption = Format.text,
) -> None:
    """Start a server; SIGTERM or Ctrl-C stops it, and the same line starts it again where it was."""
    # The web framework and the database are not needed by the verbs that only call a server.
    from edgefl_server.dashboard import add_dashboard
    from edgefl_server.http import Address, create_app, serve
    from edgefl_server.http.rates import networks
    from edgefl_server.http.serving import listen
    from edgefl_server.http.webhooks import check_webhook
    from edgefl_server.storage import sweep_outcomes

    state = state_folder(state)
    log_lines.start(log_format)
    address = Address(host, port, certificate, private_key, insecure, next_certificate)
    address.check()
    pins, next_pins = address.pins(), address.next_pins()
    proxies = networks([each for each in trusted_proxies.split(",") if each.strip()])
    webhook = check_webhook(alarm_webhook) if alarm_webhook else ""
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
            metrics_public=metrics_public,
            alarm_webhook=webhook,
        )
        add_dashboard(app)
        result = {
            "url": url,
            "state": str(state),
            "pid": os.getpid(),
            "certificate_pin": pins[0],
            "public_key_pin": pins[1],
        }

        listening = (
            f"edgefl server at {url}, its dashboard too; invite devices with: "
            f"edgefl server invite --state {state} --population NAME"
        )

        def ready() -> None:
            try:
                emit(result, format, lambda: listening, indent=None)
            except StorageError as error:  # devices wait for the server, not for its standard output
                progress(f"{error.message} {listening}")

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
