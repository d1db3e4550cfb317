"""Whether what lies in a state folder fits together, before anything is touched; and that it is its owner's only."""

from __future__ import annotations

import json
import os
import re
import stat
from pathlib import Path

from edgefl.atomic import write_text
from edgefl.errors import StorageError, storage_error
from edgefl_server.storage.database import Inspection

__all__ = ["check_folder", "make_private", "read_id", "write_id"]

_NAME = "folder.json"
_ID = re.compile("[0-9a-f]{32}")
_BLOBS = ("models", "weights", "outcomes", "orphans")
_SECRETS = ("operator.json", "server.sqlite", "server.sqlite-wal", "server.sqlite-shm")
_WAY_OUT = "Put the database back from a backup, or choose another --state. Nothing was touched."


def check_folder(folder: Path, database: Inspection) -> None:
    """Refuses a folder whose files belong to another database than the one in it.

    Args:
        folder: with the database `server.sqlite`.
        database: what it is.

    Raises:
        StorageError: they do not belong together.
    """
    known = read_id(folder)
    if database.empty:
        if known is not None or _holds_anything(folder):
            what = "is missing" if database.missing else "is empty"
            raise StorageError(f"{folder} holds what a server kept, but its server.sqlite {what}.", hint=_WAY_OUT)
    elif known is not None and database.folder != known:
        raise StorageError(
            f"The server.sqlite in {folder} is that of another state folder, or older than the files beside it.",
            hint=_WAY_OUT,
        )


def read_id(folder: Path) -> str | None:
    """The id that the folder was given when it was new; None: it has none.

    Raises:
        StorageError: the file cannot be read, or is damaged.
    """
    path = folder / _NAME
    try:
        value = json.loads(path.read_bytes())["id"]
    except FileNotFoundError:
        return None
    except OSError as error:
        raise storage_error(error, "read", path) from error
    except (ValueError, KeyError, TypeError):
        value = None
    if not isinstance(value, str) or not _ID.fullmatch(value):
        raise StorageError(f"{path} is damaged.", hint="Put it back from a backup. Nothing was touched.")
    return value


def write_id(folder: Path, value: str) -> None:
    """Writes the id, after the database that holds it too: the other order would refuse a start that was cut off."""
    write_text(folder / _NAME, json.dumps({"id": value}) + "\n", durable=True)


def make_private(folder: Path) -> None:
    """Closes a folder that others may enter, and secrets in it that others may read.

    Raises:
        StorageError: it is open to others and this user may not close it.
    """
    for path in (folder, *(folder / name for name in (*_BLOBS, *_SECRETS))):
        try:
            mode = stat.S_IMODE(path.stat().st_mode)
            if mode & 0o077:
                path.chmod(mode & 0o700)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise StorageError(
                f"{path} is open to other users of this machine, and only its owner can close it: {error.strerror}.",
                hint=f"As its owner: chmod go= {path}. Or choose another --state.",
            ) from error


def _holds_anything(folder: Path) -> bool:
    if (folder / "operator.json").exists():  # is written only once there is a database
        return True
    for name in _BLOBS:
        try:
            with os.scandir(folder / name) as entries:
                if any(not entry.name.startswith(".") for entry in entries):
                    return True
        except FileNotFoundError:
            continue
        except OSError as error:
            raise storage_error(error, "read", folder / name) from error
    return False
