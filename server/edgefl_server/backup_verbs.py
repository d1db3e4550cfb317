"""``edgefl server backup``, ``restore`` and ``check``: a state folder as a whole."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgefl.cli.output import Format, FormatOption, emit, progress
from edgefl.errors import StorageError, listed
from edgefl_server.run_text import counted
from edgefl_server.run_verbs import StateOption
from edgefl_server.state_folder import state_folder

if TYPE_CHECKING:
    from edgefl_server.storage import Checked

__all__ = ["backup", "check", "restore"]


def backup(
    target: Annotated[Path, typer.Argument(metavar="FOLDER", help="A new folder for the copy.")],
    state: StateOption = None,
    format: FormatOption = Format.text,
) -> None:
    """Copy the state folder of a server on this machine, while it runs or not; the copy fits together."""
    from edgefl_server.storage import back_up  # the database is not needed by the verbs that only call a server

    found = back_up(state_folder(state), target)
    for what, names in (("missing", found.missing), ("damaged", found.damaged)):
        if names:
            progress(f"{counted(len(names), 'file')} {what} in the state folder, and not in the copy: {listed(names)}")
    _emit(found, {"backup": str(target)}, f"{target}: {_told(found)}", format)


def restore(
    source: Annotated[Path, typer.Argument(metavar="BACKUP", help="A folder that `edgefl server backup` made.")],
    state: StateOption = None,
    format: FormatOption = Format.text,
) -> None:
    """Make a state folder from a copy; the folder must be new or empty."""
    from edgefl_server import storage

    folder = state_folder(state)
    found = storage.restore(source, folder)
    _emit(found, {"state": str(folder)}, f"{folder}: {_told(found)}; `edgefl server start` goes on from there", format)


def check(state: StateOption = None, format: FormatOption = Format.text) -> None:
    """Compare a state folder, or a copy, with its database and hashes; changes nothing, exits with 52 if not whole."""
    from edgefl_server import storage

    folder = state_folder(state)
    found = storage.check(folder)
    _emit(found, {"state": str(folder)}, f"{folder}: {_told(found)}", format)
    if found.missing or found.damaged:
        raise StorageError(
            f"{folder} lacks {counted(len(found.missing), 'file')} and has {len(found.damaged)} damaged: "
            f"{listed([*found.missing, *found.damaged])}.",
            hint="Runs that need them say so, others go on. Put the files back from a backup.",
        )


def _emit(found: Checked, named: dict[str, Any], text: str, format: Format) -> None:
    emit({**named, **asdict(found)}, format, lambda: text)


def _told(found: Checked) -> str:
    unknown = f", {counted(len(found.unknown), 'outcome')} that no row names" if found.unknown else ""
    return f"{counted(found.files, 'file')}, {found.bytes:,} bytes{unknown}"
