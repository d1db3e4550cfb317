"""``edgefl server devices``: who is enrolled, and tag, block, limit and remove one."""

from __future__ import annotations

import re
from typing import Annotated, Any
from urllib.parse import urlencode

import typer

from edgefl.cli.output import Format, FormatOption, emit
from edgefl.errors import InvalidSettingError
from edgefl.wire.words import DEVICE_BEGINNING
from edgefl_server import people_text
from edgefl_server.device_states import DeviceState
from edgefl_server.operator_client import OperatorClient
from edgefl_server.run_verbs import ServerOption, StateOption

__all__ = ["devices"]

devices = typer.Typer(
    help="List, tag, block, limit and remove devices.",
    add_completion=False,
    no_args_is_help=True,
)

DeviceArgument = Annotated[str, typer.Argument(metavar="DEVICE", help="Its id, or the first 6 digits or more of it.")]


@devices.command("list")
def list_devices(
    population: Annotated[str | None, typer.Option(help="Only of this population.")] = None,
    tag: Annotated[str | None, typer.Option(help="Only those with this tag.")] = None,
    only: Annotated[
        DeviceState | None,
        typer.Option(
            "--only",
            metavar="STATE",
            help="Only those that are active, blocked or removed.",
            show_default="all but removed",
        ),
    ] = None,
    limit: Annotated[int, typer.Option(metavar="N", help="At most so many, up to 1000.", min=1, max=1000)] = 100,
    after: Annotated[str | None, typer.Option(metavar="ID", help="Only those behind this one.")] = None,
    state: StateOption = None,
    server: ServerOption = None,
    format: FormatOption = Format.text,
) -> None:
    """List devices: when each called last, its tags, and how many outcomes are kept of it."""
    asked = {
        "population": population,
        "tag": tag,
        "state": None if only is None else only.value,
        "limit": limit,
        "after": after,
    }
    query = urlencode({name: value for name, value in asked.items() if value is not None})
    result = OperatorClient.find(state, server).get(f"/v1/devices?{query}")
    emit(result, format, lambda: people_text.devices(result))


@devices.command()
def show(
    device: DeviceArgument, state: StateOption = None, server: ServerOption = None, format: FormatOption = Format.text
) -> None:
    """Say what is known of a device, and what it says that it can do."""
    result = OperatorClient.find(state, server).get(_path(device))
    emit(result, format, lambda: people_text.device(result))


@devices.command()
def tag(
    device: DeviceArgument,
    tags: Annotated[
        list[str] | None, typer.Argument(metavar="TAG…", help="Its tags from now on; none: no tags.")
    ] = None,
    state: StateOption = None,
    server: ServerOption = None,
    format: FormatOption = Format.text,
) -> None:
    """Give a device tags, in the place of those that it had."""
    _change(device, "tags", {"tags": tags or []}, state, server, format)


@devices.command()
def quota(
    device: DeviceArgument,
    outcomes: Annotated[
        int | None, typer.Option(help="Outcomes in any 24 hours.", min=0, show_default="any number")
    ] = None,
    size: Annotated[
        int | None, typer.Option("--bytes", help="Bytes of outcomes in any 24 hours.", min=0, show_default="any number")
    ] = None,
    state: StateOption = None,
    server: ServerOption = None,
    format: FormatOption = Format.text,
) -> None:
    """Limit what a device sends in a day; without options the limit ends."""
    _change(device, "quota", {"outcomes": outcomes, "bytes": size}, state, server, format)


@devices.command()
def block(
    device: DeviceArgument, state: StateOption = None, server: ServerOption = None, format: FormatOption = Format.text
) -> None:
    """Let a device do nothing until it is unblocked; what it sent before stays."""
    _change(device, "block", None, state, server, format)


@devices.command()
def unblock(
    device: DeviceArgument, state: StateOption = None, server: ServerOption = None, format: FormatOption = Format.text
) -> None:
    """Let a blocked device go on."""
    _change(device, "unblock", None, state, server, format)


@devices.command()
def remove(
    device: DeviceArgument, state: StateOption = None, server: ServerOption = None, format: FormatOption = Format.text
) -> None:
    """Remove a device with all that it sent and that is not part of any weights yet."""
    result = OperatorClient.find(state, server).post(_path(device, "remove"))
    emit(result, format, lambda: people_text.removed(result))


def _change(
    device: str, what: str, document: dict[str, Any] | None, state: Any, server: str | None, format: Format
) -> None:
    result = OperatorClient.find(state, server).post(_path(device, what), document)
    emit(result, format, lambda: people_text.device(result))


def _path(device: str, what: str = "") -> str:
    if not re.fullmatch(DEVICE_BEGINNING, device):
        raise InvalidSettingError(
            f"There is no device {device!r:.80}.", hint="`edgefl server devices list` names all; 6 digits suffice."
        )
    return f"/v1/devices/{device}/{what}" if what else f"/v1/devices/{device}"
