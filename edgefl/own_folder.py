"""Whether a folder may be a state folder: a server closes its own to others, and both parts delete in theirs."""

from __future__ import annotations

import itertools
import os
from collections.abc import Collection
from pathlib import Path

from edgefl.errors import StorageError, storage_error

__all__ = ["require_own_folder"]

_OF_A_DISK = ("lost+found",)
"""An empty file system holds it: a state folder may be one of its own."""
_NAMED = 3
"""Entries that a message names."""


def require_own_folder(folder: Path, marks: Collection[str], own: Collection[str]) -> None:
    """Refuses a folder in which somebody else's files lie, such as a home folder, before anything in it is touched.

    A first start that was cut off may have left anything of its own; what is hidden may be half a file of its own.

    Args:
        folder: which is there.
        marks: entries by each of which a folder is known to be a state folder, whatever else is in it.
        own: the entries that a state folder has.

    Raises:
        StorageError: it holds other files, or cannot be read.
    """
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries)
    except OSError as error:
        raise storage_error(error, "read", folder) from error
    if any(mark in names for mark in marks):
        return
    others = (name for name in names if name not in own and name not in _OF_A_DISK and not name.endswith(".part"))
    if found := list(itertools.islice(others, _NAMED + 1)):
        shown = ", ".join(map(repr, found[:_NAMED])) + (", …" if len(found) > _NAMED else "")
        raise StorageError(
            f"{folder.absolute()} is no state folder, and holds other files: {shown}.",
            hint="Choose a new folder instead. Nothing was touched.",
        )
