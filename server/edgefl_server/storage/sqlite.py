"""SQLite: one writer at a time, every commit on the disk before it returns."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy
from sqlalchemy import event
from sqlalchemy.exc import DatabaseError, IntegrityError, ProgrammingError

from edgefl.errors import StorageError, storage_error
from edgefl_server.storage.database import Inspection, ReplacedDatabaseError, require_known, upgrade
from edgefl_server.storage.sessions import Session
from edgefl_server.storage.writer import Writer

__all__ = ["SqliteDatabase", "inspect_sqlite"]

_T = TypeVar("_T")

_CONNECTIONS = 40
"""The most connections: as many as the web framework has threads, so that no request waits for one."""
_CHECKPOINT_MILLISECONDS = 1000
"""A checkpoint waits so long for those who read; the next one copies what this one could not."""


def inspect_sqlite(path: Path) -> Inspection:
    """Looks at a database without changing it.

    Raises:
        FormatVersionError: a newer edgefl wrote it, or one whose tables are no longer read.
        StorageError: it cannot be read, or is damaged.
    """
    try:
        if path.stat().st_size == 0:
            return Inspection(empty=True)
    except FileNotFoundError:
        return Inspection(missing=True, empty=True)
    except OSError as error:
        raise storage_error(error, "open", path) from error
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=30)) as connection:
            problem = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
            if problem != "ok":
                raise _damaged(path, problem.splitlines()[-1])
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            versions = []
            if "alembic_version" in tables:
                versions = [name for (name,) in connection.execute("SELECT version_num FROM alembic_version")]
            if tables and not versions:
                raise StorageError(
                    f"{path} is not the database of an edgefl server.", hint="Choose another state folder."
                )
            require_known(versions, str(path))
            row = None
            if "folder" in tables:
                connection.row_factory = sqlite3.Row
                row = connection.execute("SELECT * FROM folder").fetchone()
    except sqlite3.DatabaseError as error:
        raise _explained(error, "open", path) from error
    except UnicodeDecodeError as error:  # of a damaged page, or of what SQLite says about one
        raise _damaged(path, "its text is none") from error
    if row is None:
        return Inspection(empty=not versions)
    generation = int(row["generation"]) if "generation" in row.keys() else 0  # noqa: SIM118 - a row holds values
    return Inspection(empty=not versions, folder=str(row["folder"]), generation=generation)


class SqliteDatabase:
    """Sessions on a SQLite file, migrated to the newest tables.

    Args:
        path: the file; it is created.

    Raises:
        StorageError: it cannot be opened or migrated.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer = Writer(str(path), self._transaction)
        self._engine = sqlalchemy.create_engine(
            sqlalchemy.URL.create("sqlite", database=str(path)),
            connect_args={"timeout": 30},
            pool_size=_CONNECTIONS,
            pool_use_lifo=True,  # each has its own cache of pages and of prepared statements
            pool_reset_on_return=None,  # sessions do it
        )
        event.listen(self._engine, "connect", _configure)
        with self._explained("open"):
            self._migrate()
        self._file = _identity(path)
        # A new connection would make the file that is gone, or open the other one.
        event.listen(self._engine, "do_connect", lambda *_: self.require_in_place())

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session that sees one state of the database and writes nothing."""
        with self._explained("read"), closing(Session(self._engine, "BEGIN")) as session:
            yield session

    def write(self) -> AbstractContextManager[Session]:
        """See `Database`."""
        return self._writer.write()

    def write_together(self, work: Callable[[Session], _T]) -> _T:
        """See `Database`."""
        return self._writer.write_together(work)

    @contextmanager
    def _transaction(self) -> Iterator[Session]:
        self.require_in_place()
        with self._explained("write"), closing(Session(self._engine, "BEGIN IMMEDIATE")) as session:
            yield session
            session.commit()
        self.require_in_place()

    def require_in_place(self) -> None:
        """Makes sure that what is written is found again: SQLite goes on with a file that has no name any more.

        Raises:
            ReplacedDatabaseError: the file was deleted or replaced.
        """
        found = _identity(self._path)
        if found != self._file:
            raise ReplacedDatabaseError(
                f"The database {self._path} was {'deleted' if found is None else 'replaced'} while the server runs.",
                hint="Put the very file back; else stop the server and put the state folder back from a backup.",
            )

    def checkpoint(self) -> None:
        """Moves what is in the write-ahead log to the file itself, as far as nobody reads what was before.

        SQLite drops all that follows on a damaged place of the log, and says nothing: the less is in it the better.

        Raises:
            StorageError: no space.
        """
        self.require_in_place()
        with self._writer.turn(), self._explained("write"):
            try:
                with closing(self._engine.raw_connection()) as connection:
                    cursor = connection.cursor()
                    (usual,) = cursor.execute("PRAGMA busy_timeout").fetchone()
                    cursor.execute(f"PRAGMA busy_timeout = {_CHECKPOINT_MILLISECONDS}")
                    try:
                        cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
                    finally:
                        cursor.execute(f"PRAGMA busy_timeout = {usual}")
            except sqlite3.DatabaseError as error:
                raise _explained(error, "write", self._path) from error

    def close(self) -> None:
        """Closes all connections."""
        self._engine.dispose()

    def _migrate(self) -> None:
        with self._engine.connect() as connection, connection.begin():
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            upgrade(connection)

    @contextmanager
    def _explained(self, action: str) -> Iterator[None]:
        """Says in one line what SQLite says in its own words."""
        try:
            yield
        except (IntegrityError, ProgrammingError):
            raise  # a mistake of ours, not of the disk
        except DatabaseError as error:
            raise _explained(error.orig or error, action, self._path) from error
        except UnicodeDecodeError as error:
            raise _damaged(self._path, "its text is none") from error


def _identity(path: Path) -> tuple[int, int] | None:
    """Says which file a path names; None: none."""
    try:
        entry = os.stat(path)  # noqa: PTH116 - before every commit
    except OSError:
        return None
    return entry.st_dev, entry.st_ino


def _explained(error: BaseException, action: str, path: Path) -> StorageError:
    """Turns what SQLite says (https://www.sqlite.org/rescode.html) into an error with what to do about it."""
    text = str(error)
    if "malformed" in text or "not a database" in text:
        return _damaged(path, text)
    message = f"Could not {action} the database {path}: {text}."
    if "full" in text:
        return StorageError(message, hint="Free some space on that disk and try again.", full=True)
    hints = {
        "I/O": "The disk may be failing: look at the system's log.",
        "readonly": "Check who owns the folder and its files, and that the file system is not mounted read-only.",
        "unable to open": "Check who owns the folder and its files, and how many files the process may open.",
        "locked": "Another program holds it: end that one.",
    }
    return StorageError(message, hint=next((hint for part, hint in hints.items() if part in text), None))


def _damaged(path: Path, text: str) -> StorageError:
    return StorageError(
        f"The database {path} is damaged: {text}.",
        hint="With the server stopped, put the state folder back from a backup; or choose another state folder.",
    )


def _configure(connection: Any, record: object) -> None:
    # Transactions begin where we say (see Session), not where the driver guesses.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()
