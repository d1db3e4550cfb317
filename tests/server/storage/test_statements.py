"""Statements that are made into SQL once: they find and write what SQLAlchemy would, and fail as it does."""

from __future__ import annotations

import contextlib

import pytest
from sqlalchemy import bindparam, insert, select, update
from sqlalchemy.exc import IntegrityError

from edgefl.errors import StorageError
from edgefl_server.storage.sqlite import SqliteDatabase
from edgefl_server.storage.statements import Statement
from edgefl_server.storage.tables import FoldRow, InvitationRow, table

invitations, folds = table(InvitationRow), table(FoldRow)
ADD = Statement(insert(invitations))
OF = Statement(
    select(invitations.c.token_hash, invitations.c.created_at).where(
        invitations.c.population == bindparam("who"), invitations.c.created_at > 0
    )
)
ROW = {"token_hash": "a" * 64, "population": "p", "created_at": 2, "label": "", "made_by": "", "used": 0}


@pytest.fixture
def database(tmp_path):
    database = SqliteDatabase(tmp_path / "server.sqlite")
    yield database
    database.close()


def test_values_and_constants_stand_in_their_places_and_rows_have_names(database) -> None:
    with database.write() as session:
        session.execute(ADD, ROW)
    with database.read() as session:
        row = session.execute(OF, {"who": "p"}).one()
        assert session.execute(OF, {"who": "q"}).one_or_none() is None
        assert session.scalar(OF, {"who": "q"}) is None
    assert (row.token_hash, row.created_at) == ("a" * 64, 2.0)
    assert isinstance(row.created_at, float)  # as the column has it, not as it was given


def test_what_the_database_holds_in_another_form_comes_back_as_it_was(database) -> None:
    number = {"run": "r", "number": 1, "version": 0, "state": "s", "why": "", "enrolled": 0}
    more = {"opened_at": 0.0, "opened_clock": 0.0, "metric_sums": {"loss": [1.5]}, "diagnostics": {}, "pruned": {}}
    found = Statement(select(folds.c.metric_sums, folds.c.ended_clock).where(folds.c.run == bindparam("run")))
    with database.write() as session:
        session.objects.connection().exec_driver_sql("PRAGMA defer_foreign_keys = ON")
        session.execute(Statement(insert(folds)), {**number, **more})
        row = session.execute(found, {"run": "r"}).one()
        assert (row.metric_sums, row.ended_clock) == ({"loss": [1.5]}, None)
        session.execute(Statement(folds.delete()))


def test_objects_and_statements_of_a_session_are_one_transaction(database) -> None:
    with contextlib.suppress(ZeroDivisionError), database.write() as session:
        session.execute(ADD, ROW)
        session.add(InvitationRow(token_hash="b" * 64, population="p", created_at=1.0))
        session.flush()
        assert len(session.execute(OF, {"who": "p"}).all()) == 2
        raise ZeroDivisionError
    with database.read() as session:
        assert session.execute(OF, {"who": "p"}).all() == []


def test_a_row_that_is_changed_is_counted(database) -> None:
    change = Statement(update(invitations).where(invitations.c.population == bindparam("of")).values(created_at=3.0))
    with database.write() as session:
        session.execute(ADD, ROW)
        assert session.execute(change, {"of": "p"}).rowcount == 1
        assert session.execute(change, {"of": "q"}).rowcount == 0


def test_errors_are_those_of_sqlalchemy_and_said_in_one_line(database) -> None:
    with database.write() as session:
        session.execute(ADD, ROW)
    with pytest.raises(IntegrityError), database.write() as session:
        session.execute(ADD, ROW)
    with database.read() as session:
        session.objects.connection().exec_driver_sql("PRAGMA query_only = ON")  # the next one has the same connection
    with pytest.raises(StorageError, match="readonly"), database.write() as session:
        session.execute(ADD, {**ROW, "token_hash": "b" * 64})


def test_several_rows_where_one_is_expected_are_an_error(database) -> None:
    with database.write() as session:
        session.execute(ADD, ROW)
        session.execute(ADD, {**ROW, "token_hash": "b" * 64})
    with database.read() as session, pytest.raises(ValueError, match="Expected one row, got 2"):
        session.execute(OF, {"who": "p"}).one_or_none()


def test_a_value_that_is_missing_is_an_error(database) -> None:
    with database.read() as session, pytest.raises(KeyError, match="who"):
        session.execute(OF, {})
