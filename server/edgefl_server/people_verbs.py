"""``edgefl server operators``: who may ask a server as an operator, and what each may do."""

from __future__ import annotations

from typing import Annotated

import typer

from edgefl.cli.output import Format, FormatOption, emit
from edgefl_server import people_text
from edgefl_server.durations import duration
from edgefl_server.operator_client import OperatorClient
from edgefl_server.roles import Role
from edgefl_server.run_verbs import ServerOption, StateOption

__all__ = ["operators"]

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
    role: Annotated[Role, typer.Option(help="What it may do: read; also runs and invitations; also all else.")],
    expires: ExpiresOption = None,
    state: StateOption = None,
    server: ServerOption = None,
    format: FormatOption = Format.text,
) -> None:
    """Make an operator, and print its key: it is shown this once."""
    client = OperatorClient.find(state, server)
    result = client.post("/v1/operators", {"name": name, "role": role.value, "expires_seconds": expires})
    emit(
        result,
        format,
        lambda: (
            f"key  {result['key']}\nFor {result['role']} {name}: EDGEFL_OPERATOR_KEY=KEY edgefl run list "
            f"--server {client.url}"
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
