"""Statements that are made into SQL once, for what every call of a device does.

SQLAlchemy looks a statement up in a cache each time, and wraps cursor, result and rows: six times what SQLite itself
takes for one of ours. Here that is done when a statement is run for the first time.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

from sqlalchemy import BindParameter, ColumnElement, Delete, Dialect, Insert, SelectBase, Update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql.compiler import SQLCompiler

__all__ = ["Result", "Row", "Statement"]

Row: TypeAlias = Any
"""A row: a named tuple of its columns."""


class Result:
    """The rows that a statement found.

    Attributes:
        rowcount: how many rows it changed.
    """

    __slots__ = ("_rows", "rowcount")

    def __init__(self, rows: list[Row], rowcount: int) -> None:
        self._rows, self.rowcount = rows, rowcount

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows)

    def all(self) -> list[Row]:
        """All of them."""
        return self._rows

    def one_or_none(self) -> Row:
        """The only one; None where there is none.

        Raises:
            ValueError: there are several.
        """
        return self.one() if self._rows else None

    def one(self) -> Row:
        """The only one.

        Raises:
            ValueError: there is none, or there are several.
        """
        if len(self._rows) != 1:
            raise ValueError(f"Expected one row, got {len(self._rows)}.")
        return self._rows[0]

    def scalar(self) -> Any:
        """The first column of the first row; None where there is none."""
        return self._rows[0][0] if self._rows else None


class Statement:
    """A statement all of whose values have names: those of ``bindparam``, or of an INSERT the columns' names.

    Args:
        expression: the statement as SQLAlchemy has it. The number of its values is the same each time: no ``in_``.
    """

    def __init__(self, expression: SelectBase | Insert | Update | Delete) -> None:
        self._expression = expression
        self._made: dict[str, _Made] = {}

    def run(self, cursor: Any, dialect: Dialect, values: Mapping[str, Any]) -> Result:
        """Runs it.

        Args:
            cursor: as in PEP 249, of a connection to a database of the dialect.
            dialect: which SQL to make.
            values: by name; of an INSERT the same names each time.

        Raises:
            DBAPIError: the database cannot do it.
            KeyError: a value is missing.
        """
        made = self._made.get(dialect.name)
        if made is None:
            made = self._made[dialect.name] = self._make(dialect, values)
        return made.run(cursor, values)

    def _make(self, dialect: Dialect, values: Mapping[str, Any]) -> _Made:
        names = list(values) if isinstance(self._expression, Insert) else None
        compiled = self._expression.compile(dialect=dialect, column_keys=names)
        assert isinstance(compiled, SQLCompiler)
        columns = list(self._expression.selected_columns) if isinstance(self._expression, SelectBase) else []
        return _Made(compiled, columns, dialect)


class _Made:
    """A statement in one dialect's SQL."""

    def __init__(self, compiled: SQLCompiler, columns: list[ColumnElement[Any]], dialect: Dialect) -> None:
        self._sql = str(compiled)
        self._error = dialect.loaded_dbapi.Error
        # By place or by name, as the driver has it.
        binds: dict[Any, BindParameter[Any]] = (
            {place: compiled.binds[name] for place, name in enumerate(compiled.positiontup or ())}
            if compiled.positional
            else dict(compiled.binds)
        )
        # Those that are part of the statement; None where a value comes with the call.
        fixed = {place: None if bind.required else bind.value for place, bind in binds.items()}
        self._fixed: Any = list(fixed.values()) if compiled.positional else fixed
        self._values = [
            (place, bind.key, bind.type.dialect_impl(dialect).bind_processor(dialect))
            for place, bind in binds.items()
            if bind.required
        ]
        self._columns, self._dialect = columns, dialect
        self._found: list[tuple[int, Callable[[Any], Any]]] | None = None
        self._row: Callable[[Any], Row] | None = None
        if columns:
            names: Any = namedtuple("Row", [column.key for column in columns], rename=True)  # type: ignore[misc]
            self._row = names._make

    def run(self, cursor: Any, values: Mapping[str, Any]) -> Result:
        """See `Statement.run`."""
        sent = self._fixed.copy()
        for place, name, process in self._values:
            sent[place] = values[name] if process is None else process(values[name])
        try:
            cursor.execute(self._sql, sent)
            if self._row is None:
                return Result([], cursor.rowcount)
            rows = cursor.fetchall()
        except self._error as error:
            raise explained(error, self._error, self._sql) from error
        found = self._found
        if found is None:
            found = self._found = self._processors([code for _, code, *_ in cursor.description])
        if found:
            rows = [_read(row, found) for row in rows]
        return Result(list(map(self._row, rows)), cursor.rowcount)

    def _processors(self, codes: list[Any]) -> list[tuple[int, Callable[[Any], Any]]]:
        """The makers of values of the columns' types of what the driver gives; it says by codes what that is."""
        found = [
            column.type.dialect_impl(self._dialect).result_processor(self._dialect, code)
            for column, code in zip(self._columns, codes, strict=True)
        ]
        return [(place, process) for place, process in enumerate(found) if process is not None]


def _read(row: tuple[Any, ...], processors: list[tuple[int, Callable[[Any], Any]]]) -> list[Any]:
    read = list(row)
    for place, process in processors:
        read[place] = process(read[place])
    return read


def explained(error: Exception, base: type[Exception], sql: str | None = None) -> BaseException:
    """An error of a driver as SQLAlchemy raises it: the same for both ways of running a statement."""
    return DBAPIError.instance(sql, None, error, base)
