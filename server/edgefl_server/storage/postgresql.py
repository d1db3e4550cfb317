"""PostgreSQL: writers one after the other, in whatever process they are; every commit on its disk before it returns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from typing import Any, TypeVar

import sqlalchemy
from sqlalchemy import event, text
from sqlalchemy.exc import ArgumentError, DatabaseError, DataError, IntegrityError, ProgrammingError

from edgefl.errors import InvalidSettingError, StorageError
from edgefl_server.storage.database import Inspection, require_known, upgrade
from edgefl_server.storage.sessions import Session
from edgefl_server.storage.writer import Writer

__all__ = ["PostgresqlDatabase", "database_name", "inspect_postgresql"]

_T = TypeVar("_T")

_CONNECTIONS = 20
"""The most connections of a process: a server of PostgreSQL's has 100 unless told otherwise."""
_WRITER = 0x6564676566
"""The advisory lock of whoever writes: transactions read what they decide by, and nobody may change that meanwhile."""
_READ = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
# Each statement sees what was committed before it: nothing is committed beside a writer.
_WRITE = ("BEGIN ISOLATION LEVEL READ COMMITTED", f"SELECT pg_advisory_xact_lock({_WRITER})")
_SESSION = (
    "SET synchronous_commit = on",
    "SET lock_timeout = '10s'",
    # A process that is stopped in the middle of a transaction must not hold up the others: its transaction ends.
    "SET idle_in_transaction_session_timeout = '30s'",
)
_LINK = {
    # A peer that is gone without a word is noticed within half a minute.
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
    "application_name": "edgefl server",
}
_DISK_FULL, _LOCKED, _READ_ONLY = "53100", "55P03", "25006"
"""The codes of https://www.postgresql.org/docs/current/errcodes-appendix.html."""
_AWAY = "Is it running, and does it let this machine in? The server goes on by itself when it is there again."


def inspect_postgresql(url: str) -> Inspection:
    """Looks at a database without changing it.

    Args:
        url: ``postgresql://USER@HOST:PORT/NAME``; the password comes from where PostgreSQL's own tools have it.

    Raises:
        FormatVersionError: a newer edgefl wrote it, or one whose tables are no longer read.
        InvalidSettingError: it is no such URL.
        StorageError: it cannot be reached, holds something else, or does not keep what it has committed.
    """
    engine = _engine(url)
    try:
        with _explained(_name(engine), "open"), engine.connect() as connection, connection.begin():
            _require_durable(connection, _name(engine))
            tables = set(sqlalchemy.inspect(connection).get_table_names())
            revisions: list[str] = []
            if "alembic_version" in tables:
                revisions = list(connection.scalars(text("SELECT version_num FROM alembic_version")))
            if tables and not revisions:
                raise StorageError(
                    f"{_name(engine)} is not the database of an edgefl server.",
                    hint="Make one of its own: createdb NAME.",
                )
            require_known(revisions, _name(engine))
            row = connection.execute(text("SELECT folder, generation FROM folder")).first() if revisions else None
    finally:
        engine.dispose()
    if row is None:  # there are no tables yet, or nothing is in them
        return Inspection(empty=True)
    return Inspection(folder=row.folder, generation=row.generation)


def database_name(url: str) -> str:
    """A database as messages name it: without a password.

    Raises:
        InvalidSettingError: it is no such URL.
    """
    return _shown(_address(url))


class PostgresqlDatabase:
    """Transactions on a PostgreSQL database, see `Database`.

    Connections that broke are made anew: while the database is away each transaction fails, and those after it do not.

    Args:
        url: see `inspect_postgresql`.

    Raises:
        StorageError: it cannot be reached or migrated.
    """

    def __init__(self, url: str) -> None:
        self._engine = _engine(url)
        self._name = _name(self._engine)
        self._writer = Writer(self._name, self._transaction)
        with _explained(self._name, "open"), self._engine.connect() as connection, connection.begin():
            for statement in _WRITE:
                connection.exec_driver_sql(statement)
            upgrade(connection)

    @contextmanager
    def read(self) -> Iterator[Session]:
        """See `Database`."""
        with _explained(self._name, "read"), closing(Session(self._engine, _READ)) as session:
            yield session

    def write(self) -> AbstractContextManager[Session]:
        """See `Database`."""
        return self._writer.write()

    def write_together(self, work: Callable[[Session], _T]) -> _T:
        """See `Database`."""
        return self._writer.write_together(work)

    @contextmanager
    def _transaction(self) -> Iterator[Session]:
        with _explained(self._name, "write"), closing(Session(self._engine, *_WRITE)) as session:
            yield session
            session.commit()

    def require_in_place(self) -> None:
        """See `Database`: which one it is, PostgreSQL knows."""

    def checkpoint(self) -> None:
        """See `Database`: PostgreSQL does that."""

    def close(self) -> None:
        """See `Database`."""
        self._engine.dispose()


def _address(url: str) -> sqlalchemy.URL:
    try:
        address = sqlalchemy.make_url(url)
    except ArgumentError:
        address = None
    if address is None or address.drivername not in ("postgresql", "postgres", "postgresql+psycopg"):
        raise InvalidSettingError(
            "The database expects a URL such as postgresql://edgefl@localhost/edgefl, got another one.",
            hint="Without it the server keeps its rows in its state folder.",
        )
    return address.set(drivername="postgresql+psycopg")


def _shown(address: sqlalchemy.URL) -> str:
    return address.set(drivername="postgresql", password=None, query={}).render_as_string()


def _engine(url: str) -> sqlalchemy.Engine:
    engine = sqlalchemy.create_engine(
        _address(url),
        connect_args={**_LINK, "autocommit": True},  # transactions begin where we say (see Session)
        pool_size=_CONNECTIONS,
        max_overflow=0,
        pool_use_lifo=True,
        pool_pre_ping=True,
        pool_reset_on_return=None,  # sessions do it
    )
    event.listen(engine, "connect", _configure)
    return engine


def _configure(connection: Any, record: object) -> None:
    for statement in _SESSION:
        connection.execute(statement)


def _name(engine: sqlalchemy.Engine) -> str:
    return _shown(engine.url)


def _require_durable(connection: sqlalchemy.Connection, name: str) -> None:
    if connection.scalar(text("SHOW fsync")) != "on":
        raise StorageError(
            f"{name} runs with fsync = off: what it says is committed may be lost with the power.",
            hint="A server answers 202 only for what is kept: set fsync = on in postgresql.conf.",
        )


@contextmanager
def _explained(name: str, action: str) -> Iterator[None]:
    """Says in one line what PostgreSQL says in its own words."""
    try:
        yield
    except (DataError, IntegrityError, ProgrammingError):
        raise  # a mistake of ours, not of the database
    except sqlalchemy.exc.TimeoutError as error:
        raise StorageError(f"Could not {action} the database {name}: all connections are in use.") from error
    except DatabaseError as error:
        found = error.orig or error
        said = " ".join(str(found).split()) or type(found).__name__
        code = getattr(found, "sqlstate", None)
        message = f"Could not {action} the database {name}: {said.rstrip('.')}."
        if code == _DISK_FULL:
            raise StorageError(message, hint="Free some space on its disk and try again.", full=True) from error
        hints = {
            _LOCKED: "Another process writes for too long: end that one.",
            _READ_ONLY: "It is a standby or read-only: give the URL of the primary.",
            None: _AWAY,  # there was no answer to have one
        }
        raise StorageError(message, hint=hints.get(code)) from error
