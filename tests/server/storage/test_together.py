"""What waits for the disk together: in order, once, and with errors of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import select, text

from edgefl.errors import StorageError
from edgefl_server.storage.postgresql import PostgresqlDatabase
from edgefl_server.storage.sessions import Session
from edgefl_server.storage.sqlite import SqliteDatabase
from edgefl_server.storage.tables import PopulationRow
from edgefl_server.storage.together import NotBegunError, Together


class Slow:
    """Does what is wanted once the first may end; what is 13 fails, and with 99 among them all fail."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.begun, self.may_end = threading.Event(), threading.Event()

    def __call__(self, take: Callable[[], Sequence[int]]) -> list[int | Exception]:
        batch = list(take())
        self.batches.append(batch)
        self.begun.set()
        assert self.may_end.wait(60)
        if 99 in batch:
            raise OSError("the disk")
        return [ValueError("not this one") if each == 13 else 10 * each for each in batch]


def all_at_once(slow: Slow, together: Together[int, int], first: int, others: Sequence[int]) -> list[Future[int]]:
    """The first is under way before the others come, one after the other."""
    pool = ThreadPoolExecutor(len(others) + 1)
    futures = [pool.submit(together, first)]
    assert slow.begun.wait(60)
    for count, each in enumerate(others, start=1):
        futures.append(pool.submit(together, each))
        while len(together._waiting) < count:
            pass
    slow.may_end.set()
    pool.shutdown(wait=True)
    return futures


def test_what_comes_while_another_is_done_is_done_at_once_and_in_order() -> None:
    slow = Slow()
    together: Together[int, int] = Together(slow, 3)
    futures = all_at_once(slow, together, 1, [2, 3, 4, 5])
    assert [future.result() for future in futures] == [10, 20, 30, 40, 50]
    assert slow.batches == [[1], [2, 3, 4], [5]]
    assert together(6) == 60


def test_an_error_is_for_the_one_whose_it_is_and_a_failing_disk_for_all() -> None:
    slow = Slow()
    futures = all_at_once(slow, Together(slow, 2), 1, [13, 3, 99, 5, 6])
    found = [future.exception() or future.result() for future in futures]
    assert isinstance(found[1], ValueError)
    assert isinstance(found[3], OSError)
    assert found[4] is found[3]
    assert (found[0], found[2], found[5]) == (10, 30, 60)


def test_what_is_not_begun_in_time_is_not_done() -> None:
    slow = Slow()
    together: Together[int, int] = Together(slow, 3)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(together, 1)
        assert slow.begun.wait(60)
        with pytest.raises(NotBegunError):
            together(2, 0.0)
        slow.may_end.set()
        assert first.result() == 10
    assert slow.batches == [[1]]


def add(name: str) -> Callable[[Session], str]:
    def work(session: Session) -> str:
        session.execute(text("INSERT INTO populations (population, devices) VALUES (:name, 1)"), {"name": name})
        return name

    return work


def direct(name: str, error: Exception | None = None) -> Callable[[Session], str]:
    """Past SQLAlchemy, as every call of a device does it; it may raise once it has written."""

    def work(session: Session) -> str:
        session._cursor.execute("INSERT INTO populations (population, devices) VALUES (?, 1)", [name])
        if error is not None:
            raise error
        return name

    return work


def names(database: SqliteDatabase) -> list[str]:
    with database.read() as session:
        return list(session.scalars(select(PopulationRow.population).order_by(PopulationRow.population)))


def write_all(database: SqliteDatabase | PostgresqlDatabase, works: Sequence[Any]) -> list[Any]:
    """Of all of them at once."""
    return database._writer._write_all(lambda: works)


def test_works_that_share_a_commit_are_each_whole_or_not_there(tmp_path) -> None:
    database = SqliteDatabase(tmp_path / "server.sqlite")
    refused = ValueError("surplus")
    found = write_all(database, [direct("a"), direct("b", refused), direct("c")])
    assert found == ["a", refused, "c"]
    assert names(database) == ["a", "c"]
    database.close()


def test_a_work_that_spoils_the_transaction_leaves_the_others_what_they_wrote(tmp_path) -> None:
    database = SqliteDatabase(tmp_path / "server.sqlite")
    found = write_all(database, [direct("a"), add("a"), add("b"), direct("c")])
    assert (found[0], found[2], found[3]) == ("a", "b", "c")
    assert "UNIQUE" in str(found[1])
    assert names(database) == ["a", "b", "c"]
    database.close()


def test_a_commit_that_fails_is_told_to_all_that_shared_it(tmp_path, monkeypatch) -> None:
    database = SqliteDatabase(tmp_path / "server.sqlite")

    def full(session: Session) -> None:
        raise StorageError("The disk is full.", full=True)

    with monkeypatch.context() as patched:
        patched.setattr(Session, "commit", full)
        with pytest.raises(StorageError):
            write_all(database, [direct("a"), direct("b")])
        with pytest.raises(StorageError):
            database.write_together(direct("c"))
    assert names(database) == []
    assert database.write_together(direct("d")) == "d"
    database.close()


def test_a_connection_that_breaks_in_a_transaction_is_a_storage_error_and_costs_no_connection(postgresql) -> None:
    url = postgresql.make()
    database = PostgresqlDatabase(url)
    end = "SELECT pg_terminate_backend(pg_backend_pid())"

    def by_sqlalchemy(session: Session) -> None:
        session.execute(text(end))

    def past_it(session: Session) -> None:
        session._run(end)

    for _ in range(30):  # more than there are connections
        for work in (by_sqlalchemy, past_it):
            with pytest.raises(StorageError, match="terminating connection"), database.write() as session:
                work(session)
            with pytest.raises(StorageError, match="terminating connection"), database.read() as session:
                by_sqlalchemy(session)
            with pytest.raises(StorageError):
                database.write_together(work)
    assert write_all(database, [add("a")]) == ["a"]
    database.close()
    postgresql.give_back(url)
