"""Copies of a state folder that fit together, made while its server runs; and whether a folder does.

Models, weights, data and outcomes are files that never change, named by their hash. So a copy is one of the database at
a moment (SQLite's backup, https://www.sqlite.org/backup.html) and of all files that it names. Of these, only those of
accepted outcomes ever go: once they are folded. A copy whose database names one that has gone is made again.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from edgefl.atomic import sync_folder
from edgefl.errors import StorageError, storage_error
from edgefl.hashing import new_sha256
from edgefl.wire.words import is_hash
from edgefl_server.storage.folder import Mark, check_folder, read_mark, write_mark
from edgefl_server.storage.sqlite import inspect_sqlite

__all__ = ["Checked", "back_up", "check", "restore"]

_DATABASE, _OPERATOR = "server.sqlite", "operator.json"
_STORES = ("models", "weights", "data", "outcomes")
_ATTEMPTS = 8
"""A round that is folded just then costs an attempt."""
_PIECE_BYTES = 1 << 20
_NEEDED = {
    "models": "SELECT DISTINCT model_hash FROM runs",
    "data": "SELECT DISTINCT evaluation_data FROM runs WHERE evaluation_data <> ''",
    "weights": "SELECT DISTINCT weights_hash FROM versions",
    "outcomes": "SELECT digest FROM outcomes WHERE disposition = 'accepted'",
}


@dataclass
class Checked:
    """The result of a look at a folder, or of a copy.

    Attributes:
        files: how many were looked at.
        bytes: of these.
        missing: files that the database names and that are not there, as ``store/hash``.
        damaged: those whose content has another hash.
        unknown: outcomes that the database does not name, or that a device had sent which was removed.
    """

    files: int = 0
    bytes: int = 0
    missing: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)


def back_up(folder: Path, target: Path) -> Checked:
    """Copies a state folder, whether its server runs or not; the copy is there whole, or not at all.

    Args:
        folder: of a server.
        target: made by this; may be an empty folder.

    Returns:
        What is in the copy; ``missing`` and ``damaged`` were so in the folder already.

    Raises:
        StorageError: there is no server's folder, the target holds something, or it cannot be written.
        FormatVersionError: a newer edgefl wrote the database.
    """
    _require_database(folder)
    with _building(target) as part:
        found = Checked()
        for store in _STORES:
            (part / store).mkdir()
        for attempt in range(_ATTEMPTS):
            _copy_all(folder, part, found)
            _copy_database(folder / _DATABASE, part / _DATABASE)
            # What came while the others were copied.
            _copy_all(folder, part, found)
            found.missing = [name for name in _named(part / _DATABASE) if not (part / name).exists()]
            if not set(found.missing) - set(found.damaged) or attempt == _ATTEMPTS - 1:
                break
        found.missing = sorted(set(found.missing) - set(found.damaged))
        for name in _unknown(part):  # accepted since
            (part / name).unlink()
        _seal(folder, part)
    return found


def restore(backup: Path, folder: Path) -> Checked:
    """Puts a copy into a folder that is not there or empty.

    Raises:
        StorageError: the copy is not whole, the folder holds something, or it cannot be written.
        FormatVersionError: a newer edgefl wrote the database.
    """
    _require_database(backup)
    found = check(backup)
    if found.missing or found.damaged:
        raise StorageError(
            f"{backup} is not whole: {len(found.missing)} files are missing, {len(found.damaged)} damaged.",
            hint="`edgefl server check --state` of it names them. Nothing was touched.",
        )
    with _building(folder) as part:
        copied = Checked()
        for store in _STORES:
            (part / store).mkdir()
        _copy_all(backup, part, copied)
        _copy_database(backup / _DATABASE, part / _DATABASE)
        _seal(backup, part)
    return found


def check(folder: Path) -> Checked:
    """Compares the files of a state folder with its database and with their hashes; changes nothing.

    Raises:
        StorageError: there is no server's folder, or it cannot be read.
        FormatVersionError: a newer edgefl wrote the database.
    """
    _require_database(folder)
    found = Checked()
    for store in _STORES:
        for path in _files(folder / store):
            _look(path, f"{store}/{path.name}", found)
    missing = [name for name in _named(folder / _DATABASE) if not (folder / name).exists()]
    # A running server folds: what is not there and still named is lost.
    still = set(_named(folder / _DATABASE)) if missing else set()
    found.missing = sorted(name for name in missing if name in still and not (folder / name).exists())
    found.unknown = _unknown(folder)
    return found


def _require_database(folder: Path) -> None:
    database = inspect_sqlite(folder / _DATABASE)
    if database.missing and read_mark(folder) is not None:
        raise StorageError(
            f"{folder} has no {_DATABASE}: its rows are in PostgreSQL, or lost.",
            hint="With PostgreSQL: stop the server, pg_dump the database, and copy the folder.",
        )
    if database.empty:
        raise StorageError(f"{folder} is no server's state folder.", hint="Give the --state of a server.")
    check_folder(folder, database)


@contextmanager
def _building(target: Path) -> Iterator[Path]:
    """Gives a folder beside the target that becomes it at the end of the block, and goes if that raises."""
    try:
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise StorageError(f"{target} is there and not empty.", hint="Choose a new folder. Nothing was touched.")
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.parent / f".{target.name}.{os.getpid()}.part"
        part.mkdir(mode=0o700)
    except OSError as error:
        raise storage_error(error, "make", target) from error
    try:
        yield part
        if target.exists():
            target.rmdir()
        part.rename(target)
        sync_folder(target.parent)
    except OSError as error:
        raise storage_error(error, "write", target) from error
    except sqlite3.Error as error:
        raise StorageError(f"Could not copy the database to {target}: {error}.") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _copy_database(source: Path, target: Path) -> None:
    """One state of the database, all of its log included, whoever writes meanwhile."""
    target.unlink(missing_ok=True)
    with _reading(source) as before, closing(sqlite3.connect(target)) as after:
        before.backup(after)
    with target.open("rb") as file:
        os.fsync(file.fileno())


def _copy_all(folder: Path, part: Path, found: Checked) -> None:
    for store in _STORES:
        for path in _files(folder / store):
            copy = part / store / path.name
            if not copy.exists() and f"{store}/{path.name}" not in found.damaged:
                with contextlib.suppress(FileNotFoundError):  # folded meanwhile
                    _copy(path, copy, f"{store}/{path.name}", found)
        sync_folder(part / store)


def _copy(source: Path, target: Path, name: str, found: Checked) -> None:
    unfinished = target.with_name(f".{target.name}")
    digest, size = new_sha256(), 0
    with source.open("rb") as file, unfinished.open("xb") as copy:
        while piece := file.read(_PIECE_BYTES):
            digest.update(piece)
            copy.write(piece)
            size += len(piece)
        copy.flush()
        os.fsync(copy.fileno())
    if digest.hexdigest() != target.name:
        unfinished.unlink()
        found.damaged.append(name)
        return
    unfinished.rename(target)
    found.files, found.bytes = found.files + 1, found.bytes + size


def _look(path: Path, name: str, found: Checked) -> None:
    digest, size = new_sha256(), 0
    try:
        with path.open("rb") as file:
            while piece := file.read(_PIECE_BYTES):
                digest.update(piece)
                size += len(piece)
    except FileNotFoundError:
        return  # folded meanwhile
    except OSError as error:
        raise storage_error(error, "read", path) from error
    found.files, found.bytes = found.files + 1, found.bytes + size
    if digest.hexdigest() != path.name:
        found.damaged.append(name)


def _seal(source: Path, part: Path) -> None:
    """Puts beside the database what says that it belongs here, and the operator's file."""
    database = inspect_sqlite(part / _DATABASE)
    if database.folder is not None:
        write_mark(part, Mark(database.folder, database.generation))
    with contextlib.suppress(FileNotFoundError):
        shutil.copyfile(source / _OPERATOR, part / _OPERATOR)
        (part / _OPERATOR).chmod(0o600)
    (part / _DATABASE).chmod(0o600)
    sync_folder(part)


def _files(store: Path) -> Iterator[Path]:
    try:
        names = sorted(os.listdir(store))  # noqa: PTH208 - names only
    except FileNotFoundError:
        return
    except OSError as error:
        raise storage_error(error, "read", store) from error
    yield from (store / name for name in names if is_hash(name) and (store / name).is_file())


def _named(database: Path) -> list[str]:
    """All files that a database needs."""
    with _reading(database) as connection:
        queries = {**_NEEDED}
        if not _has_column(connection, "runs", "evaluation_data"):  # an older server's, before it is migrated
            del queries["data"]
        queries["outcomes"] += f" AND {_not_of_removed_devices(connection)}"
        found = [f"{store}/{digest}" for store, query in queries.items() for (digest,) in connection.execute(query)]
        for (slots,) in connection.execute("SELECT DISTINCT slots FROM versions"):
            with contextlib.suppress(ValueError, AttributeError):  # what makes no sense is told by the run's trouble
                found += [f"weights/{digest}" for digest in json.loads(slots).values()]
    return list(dict.fromkeys(found))


def _unknown(folder: Path) -> list[str]:
    with _reading(folder / _DATABASE) as connection:
        query = f"SELECT digest FROM outcomes WHERE {_not_of_removed_devices(connection)}"  # noqa: S608 - our words
        known = {digest for (digest,) in connection.execute(query)}
    return [f"outcomes/{path.name}" for path in _files(folder / "outcomes") if path.name not in known]


def _not_of_removed_devices(connection: sqlite3.Connection) -> str:
    """Says in SQL which outcomes anybody needs: those of a removed device have rows until their round ends."""
    if not _has_column(connection, "devices", "removed_at"):
        return "1"
    return "device NOT IN (SELECT device FROM devices WHERE removed_at IS NOT NULL)"


def _has_column(connection: sqlite3.Connection, table: str, column: str) -> bool:
    return any(name == column for _, name, *_ in connection.execute(f"PRAGMA table_info({table})"))


@contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=30)) as connection:
            yield connection
    except sqlite3.Error as error:
        raise StorageError(f"Could not read the database {path}: {error}.") from error
