"""One writer at a time in this process: waiting here in order is fairer, and faster, than in the database."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeVar

from edgefl.errors import StorageError
from edgefl_server.storage.sessions import Session, SpoiltError
from edgefl_server.storage.together import NotBegunError, Together

__all__ = ["Writer"]

_T = TypeVar("_T")

_LONGEST_TURN_SECONDS = 10.0
"""A call that has waited so long for the writer waits no longer, nor does any after it until one comes through: the
threads that wait are missing to those who only read."""
_TOGETHER = 32
"""Nobody else can write meanwhile, and the first waits for the last."""


class Writer:
    """Whoever writes to a database, one after the other.

    Args:
        database: how messages name it.
        transaction: in which somebody writes.
    """

    def __init__(self, database: str, transaction: Callable[[], AbstractContextManager[Session]]) -> None:
        self._database, self._transaction = database, transaction
        self._writing = threading.Lock()
        self._stuck = False
        self._together: Together[Callable[[Session], Any], Any] = Together(self._write_all, _TOGETHER)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Waits for the writer; not for long, and not at all behind those who have waited in vain.

        Raises:
            StorageError: whoever writes now takes too long, be it another program.
        """
        if not self._writing.acquire(timeout=self._patience()):
            raise self._too_slow()
        try:
            yield
        finally:
            self._writing.release()

    @contextmanager
    def write(self) -> Iterator[Session]:
        """See `Database`."""
        with self.turn(), self._transaction() as session:
            try:
                yield session
            finally:
                self._stuck = False

    def write_together(self, work: Callable[[Session], _T]) -> _T:
        """See `Database`."""
        try:
            result: _T = self._together(work, self._patience())
        except NotBegunError:
            raise self._too_slow() from None
        return result

    def _write_all(self, take: Callable[[], Sequence[Callable[[Session], Any]]]) -> list[Any]:
        works: Sequence[Callable[[Session], Any]] = []
        # Else one of them left the transaction in no state to go on from, and each is done on its own.
        with contextlib.suppress(SpoiltError), self.write() as session:
            works = take()
            return [session.attempt(work) for work in works]
        return [self._written(work) for work in works]

    def _written(self, work: Callable[[Session], Any]) -> Any:
        try:
            with self.write() as session:
                result = work(session)
        except Exception as error:
            return error
        return result

    def _patience(self) -> float:
        return 0.0 if self._stuck else _LONGEST_TURN_SECONDS

    def _too_slow(self) -> StorageError:
        self._stuck = True
        return StorageError(
            f"Could not write the database {self._database}: whoever writes to it takes too long.",
            hint="Another program may hold it: end that one. Or the disk is very slow.",
        )
