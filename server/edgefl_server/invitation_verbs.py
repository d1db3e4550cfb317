"""``edgefl server invite`` and ``invitations``: what lets devices in."""

from __future__ import annotations

import re
import socket
from typing import Annotated
from urllib.parse import urlsplit

import typer

from edgefl.cli.output import Format, FormatOption, emit, progress
from edgefl.errors import InvalidSettingError, ProtocolError
from edgefl.invitation import Invitation
from edgefl.wire.words import INVITATION_ID
from edgefl_server import people_text
from edgefl_server.durations import duration
from edgefl_server.operator_client import OperatorClient
from edgefl_server.run_verbs import ServerOption, StateOption
from edgefl_server.urls import is_http_url, is_of_this_machine

__all__ = ["invitations", "invite"]

invitations = typer.Typer(
    help="List and revoke invitations.",
    add_completion=False,
    no_args_is_help=True,
)


def invite(
    population: Annotated[str, typer.Option(help="Which population the devices join; any name.")],
    state: StateOption = None,
    server: ServerOption = None,
    url: Annotated[str | None, typer.Option(help="The address that devices use, when it is another one.")] = None,
    uses: Annotated[
        int | None, typer.Option(help="How many devices may enrol with it.", min=1, show_default="any number")
    ] = None,
    expires: Annotated[
        float | None,
        typer.Option(
            parser=duration, metavar="7d", help="How long: s, m, h, d or w.", show_default="until it is revoked"
        ),
    ] = None,
    label: Annotated[str, typer.Option(help="Any text, to know it again.")] = "",
    format: FormatOption = Format.text,
) -> None:
    """Make a token for devices, and an invitation that holds all they need to take part."""
    client = OperatorClient.find(state, server)
    address = client.url if url is None else _for_devices(url, client)
    asked = {"population": population, "uses": uses, "expires_seconds": expires, "label": label}
    # An older server knows a population only, and would let in whom this one does not.
    asked = {name: value for name, value in asked.items() if value not in (None, "")}
    made = client.post("/v1/invitations", asked)
    token = made["token"]
    if any(made.get(name) != value for name, value in asked.items()):
        raise ProtocolError(
            f"{client.url} is older than this edgefl: it made an invitation that does not end.",
            hint="Update the server, or invite without --uses, --expires and --label.",
        )
    pins = (client.certificate_pin, client.public_key_pin, *client.next_pins)
    text = Invitation(address, population, token, *pins).encode()
    result = {
        "population": population,
        "token": token,
        "uses": uses,
        "expires_seconds": expires,
        "label": label,
        "invitation": text,
        "url": address,
        "certificate_pin": client.certificate_pin,
        "public_key_pin": client.public_key_pin,
    }
    if is_of_this_machine(address):
        progress(
            f"Devices on other machines cannot use {address}: for them, start the server with --host, "
            f"and give --url with this machine's name ({socket.gethostname()})."
        )
    emit(
        result,
        format,
        lambda: (
            f"token       {token}\ninvitation  {text}\n"
            f"On a device: edgefl device run --invitation {text} --data SOURCE --state DIR"
        ),
    )


def _for_devices(url: str, client: OperatorClient) -> str:
    """The address that an invitation is to name.

    Raises:
        InvalidSettingError: no device could use it.
    """
    scheme, _, own = client.url.partition("://")
    if not is_http_url(url):
        bare = url.rpartition("/")[2] or own
        raise InvalidSettingError(
            f"--url expects http:// or https://, and the name of this machine, got {url!r}.",
            hint=f"For example: {scheme}://{bare}" + ("" if ":" in bare else f":{urlsplit(client.url).port}"),
        )
    given = urlsplit(url).scheme
    if given == "http" and client.certificate_pin is not None:
        raise InvalidSettingError(
            f"The server shows a certificate, which no device would see at {url}.", hint="Give --url with https://."
        )
    if given == "https" and scheme == "http":
        progress(
            f"This server does not speak TLS: devices reach {url} only if something in front of it does. "
            "Else give http://, or start the server with --certificate and --private-key."
        )
    return url


@invitations.command("list")
def list_invitations(
    state: StateOption = None, server: ServerOption = None, format: FormatOption = Format.text
) -> None:
    """List all invitations: for whom, how often used, and whether anybody may still enrol with it."""
    result = OperatorClient.find(state, server).get("/v1/invitations")
    emit(result, format, lambda: people_text.invitations(result))


@invitations.command()
def revoke(
    invitation: Annotated[str, typer.Argument(metavar="ID", help="As `invitations list` shows it.")],
    state: StateOption = None,
    server: ServerOption = None,
    format: FormatOption = Format.text,
) -> None:
    """Let nobody enrol with an invitation any more; devices that have stay."""
    if not re.fullmatch(INVITATION_ID, invitation):
        raise InvalidSettingError(
            f"There is no invitation {invitation!r:.80}.", hint="`edgefl server invitations list` names all."
        )
    result = OperatorClient.find(state, server).post(f"/v1/invitations/{invitation}/revoke")
    emit(result, format, lambda: f"invitation {invitation} is revoked")
