"""One writer at a time in this process: waiting here in order is fairer, and faster, than in the database."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from edgefl.errors import StorageError

__all__ = ["Turns"]

_LONGEST_SECONDS = 10.0
"""A call that has waited so long for the writer waits no longer, nor does any after it until one comes through: the
threads that wait are missing to those who only read."""


class Turns:
    """Takes turns at the only writer of a database.

    Args:
        database: how messages name it.
    """

    def __init__(self, database: str) -> None:
        self._database = database
        self._writing = threading.Lock()
        self._stuck = False

    @contextmanager
    def take(self) -> Iterator[None]:
        """Waits for the writer; not for long, and not at all behind those who have waited in vain.

        Raises:
            StorageError: whoever writes now takes too long, be it another program.
        """
        if not self._writing.acquire(timeout=0.0 if self._stuck else _LONGEST_SECONDS):
            self._stuck = True
            raise StorageError(
                f"Could not write the database {self._database}: whoever writes to it takes too long.",
                hint="Another program may hold it: end that one. Or the disk is very slow.",
            )
        try:
            yield
        finally:
            self._writing.release()

    def came_through(self) -> None:
        """One has begun and ended to write: others may wait again."""
        self._stuck = False
