"""``edgefl server operators`` and ``audit``: who may ask a server as an operator, and who did what."""

from __future__ import annotations

import socket
import time
from typing import Annotated
from urllib.parse import urlencode

import typer

from edgefl.cli.output import Format, FormatOption, emit, progress
from edgefl_server import people_text
from edgefl_server.durations import duration
from edgefl_server.operator_client import OperatorClient
from edgefl_server.roles import Role
from edgefl_server.run_verbs import ServerOption, StateOption
from edgefl_server.urls import is_of_this_machine

__all__ = ["audit", "operators"]

operators = typer.Typer(
    help="Add, list and revoke operators: each has a role and a key of its own.",
    add_completion=False,
    no_args_is_help=True,
)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The operator's name.")]
_LIFE = typer.Option(parser=duration, metavar="7d", help="How long: s, m, h, d or w.", show_default="until revoked")
ExpiresOption = Annotated[float | None, _LIFE]


@operators.command()
def add(
    name: NameArgument,
    role: Annotated[
        Role, typer.Option(metavar="ROLE", help="viewer: read; operator: also runs, invitations, devices; admin: all.")
    ],
    expires: ExpiresOption = None,
    state: StateOption = None,
    server: ServerOption = None,
    format: FormatOption = Format.text,
) -> None:
    """Make an operator, and print its key: it is shown this once."""
    client = OperatorClient.find(state, server)
    result = client.post("/v1/operators", {"name": name, "role": role.value, "expires_seconds": expires})
    if is_of_this_machine(client.url):
        progress(
            f"Other machines cannot use {client.url}: start the server with --host, and tell them this machine's name "
            f"({socket.gethostname()}) in its place."
        )
    pin = f"EDGEFL_CERTIFICATE_PIN={client.certificate_pin} " if client.certificate_pin else ""
    emit(
        {**result, "url": client.url, "certificate_pin": client.certificate_pin},
        format,
        lambda: (
            f"key  {result['key']}\n"
            f"For {result['role']} {name}: the key signs in at {client.url}, and is for commands:\n"
            f"EDGEFL_OPERATOR_KEY=KEY {pin}edgefl run list --server {client.url}"
        ),
    )


@operators.command("list")
def list_operators(state: StateOption = None, server: ServerOption = None, format: FormatOption = Format.text) -> None:
    """List all operators, also those whose key is revoked or expired."""
    result = OperatorClient.find(state, server).get("/v1/operators")
    emit(result, format, lambda: people_text.operators(result))


@operators.command()
def revoke(
    name: NameArgument, state: StateOption = None, server: ServerOption = None, format: FormatOption = Format.text
) -> None:
    """Make an operator's key worthless, at once and for good."""
    result = OperatorClient.find(state, server).post("/v1/operators/revoke", {"name": name})
    emit(result, format, lambda: f"{name} is revoked")


def audit(
    since: Annotated[
        float | None, typer.Option(parser=duration, metavar="7d", help="Only of so long: s, m, h, d or w.")
    ] = None,
    limit: Annotated[int, typer.Option(help="The newest so many.", min=1, max=1000)] = 100,
    before: Annotated[int | None, typer.Option(help="Only those with a smaller number.", min=1)] = None,
    state: StateOption = None,
    server: ServerOption = None,
    format: FormatOption = Format.text,
) -> None:
    """Tell who did what: acts of operators, enrolments, and how many were refused; newest first."""
    asked = {"limit": limit, "since": None if since is None else time.time() - since, "before": before}
    query = urlencode({name: value for name, value in asked.items() if value is not None})
    result = OperatorClient.find(state, server).get(f"/v1/audit?{query}")
    emit(result, format, lambda: people_text.audit(result))
