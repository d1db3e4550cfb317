"""Whether what lies in a state folder fits together, before anything is touched; and that it is its owner's only."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import asdict, dataclass
from pathlib import Path

from edgefl.atomic import read_bytes, write_text
from edgefl.errors import StorageError, storage_error
from edgefl.own_folder import require_own_folder
from edgefl.wire.words import is_random_id
from edgefl_server.storage.database import Inspection

__all__ = ["Mark", "check_folder", "make_private", "read_mark", "require_own", "write_mark"]

_NAME = "folder.json"
_FILES = ("models", "weights", "differences", "outcomes", "orphans", "uploads", "data")
_SECRETS = ("operator.json", "server.sqlite", "server.sqlite-wal", "server.sqlite-shm")
_DATABASE = "server.sqlite"
_WITH_LOG = ", with its -wal"
_WAY_OUT = "Put the database back from a backup, or choose another state folder. Nothing was touched."


@dataclass(frozen=True)
class Mark:
    """A mark of the database, kept beside it to know it again.

    Attributes:
        id: that the folder was given when it was new.
        generation: how far the server had come when the mark was written. The database has always come at least as far.
    """

    id: str
    generation: int = 0


def require_own(folder: Path) -> None:
    """Refuses a folder of somebody else's files: it would be closed to others, and emptied in places.

    Raises:
        StorageError: it is one.
    """
    require_own_folder(folder, (_NAME, "operator.json", "server.sqlite"), (*_FILES, *_SECRETS, "lock", "evaluating"))


def check_folder(folder: Path, database: Inspection, name: str = _DATABASE) -> None:
    """Refuses a folder whose files belong to another database than the one in it, or to a newer state of it.

    Args:
        folder: what the server keeps beside the database.
        database: what that is.
        name: of the database; that of the file in the folder, or its URL.

    Raises:
        StorageError: they do not belong together.
    """
    known = read_mark(folder)
    if database.empty:
        if known is not None or _holds_anything(folder):
            what = "is missing" if database.missing else "is empty"
            raise StorageError(f"{folder} holds what a server kept, but its {name} {what}.", hint=_WAY_OUT)
    elif known is None and name != _DATABASE:
        raise StorageError(
            f"The database {name} is that of another state folder: {folder} is new.",
            hint="Start the server with the state folder that the database has; or give this one a database of its "
            "own: createdb NAME. Nothing was touched.",
        )
    elif known is not None and database.folder != known.id:
        raise StorageError(
            f"{_of(folder, name)} is that of another state folder, or older than the files beside it.",
            hint=_WAY_OUT,
        )
    elif known is not None and database.generation < known.generation:
        raise StorageError(
            f"{_of(folder, name)} is older than the files beside it, or has lost its latest entries: it has "
            f"come to {database.generation}, {_NAME} to {known.generation}.",
            hint=f"Put the newest {name} back{_WITH_LOG if name == _DATABASE else ''}; to return to an older copy on "
            "purpose, put the whole folder back. Nothing was touched.",
        )


def _of(folder: Path, name: str) -> str:
    return f"The {name} in {folder}" if name == _DATABASE else f"The database {name}, for {folder},"


def read_mark(folder: Path) -> Mark | None:
    """Reads the folder's mark of its database; None: there is none.

    Raises:
        StorageError: the file cannot be read, or is damaged.
    """
    path = folder / _NAME
    try:
        document = json.loads(read_bytes(path))
        mark = Mark(document["id"], document.get("generation", 0))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise storage_error(error, "read", path) from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        mark = None
    if mark is None or not _is_valid(mark):
        raise StorageError(f"{path} is damaged.", hint="Put it back from a backup. Nothing was touched.")
    return mark


def write_mark(folder: Path, mark: Mark) -> None:
    """Writes it, after the database that says the same: the other order would refuse a start that was cut off."""
    write_text(folder / _NAME, json.dumps(asdict(mark)) + "\n", durable=True)


def make_private(folder: Path) -> None:
    """Closes a folder that others may enter, and secrets in it that others may read.

    Raises:
        StorageError: it is open to others and this user may not close it.
    """
    for path in (folder, *(folder / name for name in (*_FILES, *_SECRETS))):
        try:
            mode = stat.S_IMODE(path.stat().st_mode)
            if mode & 0o077:
                path.chmod(mode & 0o700)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise StorageError(
                f"{path} is open to other users of this machine, and only its owner can close it: {error.strerror}.",
                hint=f"As its owner: chmod go= {path}. Or choose another state folder.",
            ) from error


def _is_valid(mark: Mark) -> bool:
    generation_fits = type(mark.generation) is int and mark.generation >= 0
    return isinstance(mark.id, str) and is_random_id(mark.id) and generation_fits


def _holds_anything(folder: Path) -> bool:
    if (folder / "operator.json").exists():  # is written only once there is a database
        return True
    for name in _FILES:
        try:
            with os.scandir(folder / name) as entries:
                if any(not entry.name.startswith(".") for entry in entries):
                    return True
        except FileNotFoundError:
            continue
        except OSError as error:
            raise storage_error(error, "read", folder / name) from error
    return False
