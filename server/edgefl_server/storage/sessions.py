"""One transaction, in two ways: what is known beforehand goes straight to the driver, objects go by SQLAlchemy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, TypeVar, overload

from sqlalchemy import (
    Connection,
    Engine,
    Executable,
    ScalarResult,
    bindparam,
    event,
    orm,
    select,
)
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql.selectable import TypedReturnsRows

from edgefl_server.storage.statements import Result, Row, Statement, explained
from edgefl_server.storage.tables import Table, table

__all__ = ["Session", "SpoiltError"]

_T = TypeVar("_T")


@cache
def _row_of(entity: type[Table]) -> Statement:
    of = table(entity)
    return Statement(select(of).where(*(column == bindparam(column.key) for column in of.primary_key)))


class _Objects(orm.Session):
    """Holds on to the rows that it read: SQLAlchemy itself forgets a row that nobody refers to, and reads it again."""


@event.listens_for(_Objects, "loaded_as_persistent")
def _hold(session: orm.Session, row: object) -> None:
    session.info.setdefault("read", []).append(row)


class SpoiltError(Exception):
    """A transaction is in no state to be committed: whatever it was to write is to be written in others."""


class Session:
    """A transaction, which reads and writes.

    Args:
        engine: of the database; one of its connections is used until the session is closed.
        begin: the SQL that begins the transaction, statement by statement.

    Raises:
        DBAPIError: it cannot be begun.
    """

    def __init__(self, engine: Engine, *begin: str) -> None:
        self._engine = engine
        self._error = engine.dialect.loaded_dbapi.Error
        self._objects: _Objects | None = None
        try:
            self._connection = engine.raw_connection()
            try:
                self._cursor = self._connection.cursor()
                for statement in begin:
                    self._cursor.execute(statement)
            except BaseException:
                self._connection.rollback()
                self._connection.close()
                raise
        except self._error as error:
            raise explained(error, self._error, "; ".join(begin)) from error

    @property
    def objects(self) -> orm.Session:
        """SQLAlchemy's session in the same transaction."""
        if self._objects is None:
            bound = Connection(self._engine, self._connection)
            self._objects = _Objects(bound, expire_on_commit=False)
        return self._objects

    @overload
    def execute(self, statement: Statement, values: Mapping[str, Any] | None = None) -> Result: ...

    @overload
    def execute(self, statement: Executable, values: Any = None) -> Any: ...

    def execute(self, statement: Statement | Executable, values: Any = None) -> Any:
        """Runs a statement; one of SQLAlchemy's may have a list of values."""
        if isinstance(statement, Statement):
            return statement.run(self._cursor, self._engine.dialect, values or {})
        return self.objects.execute(statement, values)

    @overload
    def scalar(self, statement: TypedReturnsRows[_T], values: Any = None) -> _T | None: ...

    @overload
    def scalar(self, statement: Statement | Executable, values: Any = None) -> Any: ...

    def scalar(self, statement: Statement | Executable, values: Any = None) -> Any:
        """The first column of the first row that a statement finds; None where there is none."""
        if isinstance(statement, Statement):
            return self.execute(statement, values).scalar()
        return self.objects.scalar(statement, values)

    @overload
    def scalars(self, statement: TypedReturnsRows[_T], values: Any = None) -> ScalarResult[_T]: ...

    @overload
    def scalars(self, statement: Executable, values: Any = None) -> ScalarResult[Any]: ...

    def scalars(self, statement: Executable, values: Any = None) -> ScalarResult[Any]:
        """The first column of all the rows that a statement of SQLAlchemy's finds."""
        return self.objects.scalars(statement, values)

    def get(self, entity: type[_T], key: Any) -> _T | None:
        """The object with a primary key; None where there is none."""
        return self.objects.get(entity, key)

    def get_one(self, entity: type[_T], key: Any) -> _T:
        """The object with a primary key."""
        return self.objects.get_one(entity, key)

    def row(self, entity: type[Table], **key: Any) -> Row:
        """The row with a primary key as a named tuple, which is not written back; much cheaper than an object.

        Raises:
            ValueError: there is none.
        """
        return self.execute(_row_of(entity), key).one()

    def add(self, row: object) -> None:
        """Writes an object at the end, or at the next `flush`."""
        self.objects.add(row)

    def flush(self) -> None:
        """Writes what was added and changed."""
        if self._objects is not None:
            self._objects.flush()

    def attempt(self, work: Callable[[Session], _T]) -> _T | Exception:
        """Does what a function writes, or nothing of it where it raises; its result, or what it raised.

        Raises:
            SpoiltError: what it wrote cannot be told from what was written before.
        """
        self._run("SAVEPOINT attempt")
        try:
            result = work(self)
            self.flush()
        except Exception as error:
            if self._objects is not None or isinstance(error, DBAPIError):
                raise SpoiltError from error
            self._run("ROLLBACK TO attempt")
            self._run("RELEASE attempt")
            return error
        self._run("RELEASE attempt")
        return result

    def _run(self, sql: str) -> None:
        try:
            self._cursor.execute(sql)
        except self._error as error:
            raise explained(error, self._error, sql) from error

    def commit(self) -> None:
        """Ends the transaction: what was written is on the disk."""
        try:
            if self._objects is not None:
                self._objects.commit()
            self._connection.commit()
        except self._error as error:
            raise explained(error, self._error) from error

    def close(self) -> None:
        """Ends the transaction without what was not committed."""
        try:
            if self._objects is not None:
                self._objects.close()
            if self._connection.is_valid:  # else SQLAlchemy saw it break, and has dropped it
                self._connection.rollback()
        except self._error:  # the connection broke, and the transaction with it
            self._connection.invalidate()
        finally:
            self._connection.close()
