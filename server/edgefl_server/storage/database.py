"""The database: one writer at a time, every commit on the disk before it returns."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import alembic.command
import alembic.config
import sqlalchemy
from sqlalchemy import event
from sqlalchemy.exc import DatabaseError, IntegrityError, ProgrammingError
from sqlalchemy.orm import Session

from edgefl.errors import StorageError

__all__ = ["Database"]

_MIGRATIONS = Path(__file__).parent / "migrations"
_WRITES = "edgefl_writes"
_CONNECTIONS = 40
"""As many as the web framework has threads, so that no request waits for a connection."""


class Database:
    """Sessions on a SQLite file, migrated to the newest tables.

    Args:
        path: the file; it is created.

    Raises:
        StorageError: it cannot be opened or migrated.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        # SQLite has one writer; waiting here in order is fairer and faster than its busy handler.
        self._writing = threading.Lock()
        self._engine = sqlalchemy.create_engine(
            sqlalchemy.URL.create("sqlite", database=str(path)), connect_args={"timeout": 30}, pool_size=_CONNECTIONS
        )
        event.listen(self._engine, "connect", _configure)
        event.listen(self._engine, "begin", _begin)
        with self._explained("open"):
            self._migrate()

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session that sees one state of the database and writes nothing."""
        with (
            self._explained("read"),
            self._engine.connect() as connection,
            connection.begin(),
            Session(connection, autoflush=False) as session,
        ):
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A transaction: committed, and on the disk, when the block ends; rolled back when it raises."""
        with self._writing, self._explained("write"), self._engine.connect() as connection:
            connection = connection.execution_options(**{_WRITES: True})
            with connection.begin() as transaction, Session(connection, expire_on_commit=False) as session:
                yield session
                session.flush()
                transaction.commit()

    def close(self) -> None:
        """Closes all connections."""
        self._engine.dispose()

    def _migrate(self) -> None:
        config = alembic.config.Config()
        config.set_main_option("script_location", str(_MIGRATIONS))
        with self._engine.connect() as connection, connection.begin():
            config.attributes["connection"] = connection
            alembic.command.upgrade(config, "head")

    @contextmanager
    def _explained(self, action: str) -> Iterator[None]:
        """Says in one line what SQLite says in its own words."""
        try:
            yield
        except (IntegrityError, ProgrammingError):
            raise  # a mistake of ours, not of the disk
        except DatabaseError as error:
            text = str(error.orig)
            hint = "Free some space on that disk and try again." if "full" in text or "I/O" in text else None
            raise StorageError(f"Could not {action} the database {self._path}: {text}.", hint=hint) from error


def _configure(connection: Any, record: object) -> None:
    # Transactions begin where we say (see _begin), not where the driver guesses.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _begin(connection: sqlalchemy.Connection) -> None:
    writes = connection.get_execution_options().get(_WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
