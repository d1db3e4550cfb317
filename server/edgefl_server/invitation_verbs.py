"""``edgefl server invite``: what lets devices in."""

from __future__ import annotations

import socket
from typing import Annotated
from urllib.parse import urlsplit

import typer

from edgefl.cli.output import Format, FormatOption, emit, progress
from edgefl.errors import InvalidSettingError
from edgefl.invitation import Invitation
from edgefl_server.operator_client import OperatorClient
from edgefl_server.run_verbs import ServerOption, StateOption

__all__ = ["invite"]


def invite(
    population: Annotated[str, typer.Option(help="Which population the devices join; any name.")],
    state: StateOption = None,
    server: ServerOption = None,
    url: Annotated[str | None, typer.Option(help="The address that devices use, when it is another one.")] = None,
    format: FormatOption = Format.text,
) -> None:
    """Make a token for devices, and an invitation that holds all they need to take part."""
    client = OperatorClient.find(state, server)
    address = client.url if url is None else _for_devices(url, client)
    token = client.post("/v1/invitations", {"population": population})["token"]
    text = Invitation(address, population, token, client.certificate_pin, client.public_key_pin).encode()
    result = {
        "population": population,
        "token": token,
        "invitation": text,
        "url": address,
        "certificate_pin": client.certificate_pin,
        "public_key_pin": client.public_key_pin,
    }
    if urlsplit(address).hostname in ("127.0.0.1", "::1", "localhost"):
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
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    scheme, _, own = client.url.partition("://")
    if not usable:
        bare = url.rpartition("/")[2] or own
        raise InvalidSettingError(
            f"--url expects http:// or https://, and the name of this machine, got {url!r}.",
            hint=f"For example: {scheme}://{bare}" + ("" if ":" in bare else f":{urlsplit(client.url).port}"),
        )
    if parts.scheme == "http" and client.certificate_pin is not None:
        raise InvalidSettingError(
            f"The server shows a certificate, which no device would see at {url}.", hint="Give --url with https://."
        )
    if parts.scheme == "https" and scheme == "http":
        progress(
            f"This server does not speak TLS: devices reach {url} only if something in front of it does. "
            "Else give http://, or start the server with --certificate and --private-key."
        )
    return url
