"""The databases that a server may have: what each can do, and which tables it has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import alembic.command
import alembic.config
import alembic.script
import sqlalchemy

from edgefl.errors import FormatVersionError, StorageError
from edgefl_server.storage.sessions import Session

__all__ = ["Database", "Inspection", "ReplacedDatabaseError", "require_known", "upgrade"]

_T = TypeVar("_T")

_MIGRATIONS = Path(__file__).parent / "migrations"
_FORMER_TABLES = frozenset({"0001", "0002", "0003", "0004", "0005", "0006"})
"""Revisions of before versions, cohorts and folds were apart and outcomes had an order, which cannot be made up."""


class ReplacedDatabaseError(StorageError):
    """The database under its name is gone or is another one: what is written would be lost."""


@dataclass(frozen=True)
class Inspection:
    """The result of looking into a database.

    Attributes:
        missing: there is none.
        empty: there is none, or nothing in it.
        folder: the id of the state folder that it belongs to; None when it has none yet.
        generation: how far its server had come; 0 when it did not count yet.
    """

    missing: bool = False
    empty: bool = False
    folder: str | None = None
    generation: int = 0


class Database(Protocol):
    """Transactions on the server's tables, which are migrated to the newest when it is opened."""

    def read(self) -> AbstractContextManager[Session]:
        """A session that sees one state of the database and writes nothing."""
        ...

    def write(self) -> AbstractContextManager[Session]:
        """A transaction: committed, and on the disk, when the block ends; rolled back when it raises.

        Nobody else writes between its beginning and its end, so that what it reads stays true.

        Raises:
            ReplacedDatabaseError: see `require_in_place`.
            StorageError: no space, no connection; or whoever writes now takes too long, be it another program.
        """
        ...

    def write_together(self, work: Callable[[Session], _T]) -> _T:
        """Does what `write` does with a function that writes; those of all threads that come at once share a commit.

        They are done in the order in which they came, each as if it were alone: one that raises changes nothing, and
        keeps no other from being committed.

        Args:
            work: which may be called again, when another one has spoilt the transaction.

        Raises:
            ReplacedDatabaseError, StorageError: see `write`; for all that shared the commit.
        """
        ...

    def require_in_place(self) -> None:
        """Makes sure that what is written is found again, as far as that can be seen without asking the database.

        Raises:
            ReplacedDatabaseError: the database was deleted or replaced.
        """
        ...

    def checkpoint(self) -> None:
        """Moves what is in a log to where a backup looks for it, where there is such a difference.

        Raises:
            StorageError: no space.
        """
        ...

    def close(self) -> None:
        """Closes all connections."""
        ...


def upgrade(connection: sqlalchemy.Connection) -> None:
    """Migrates to the newest tables, in the transaction that is under way."""
    config = alembic.config.Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.attributes["connection"] = connection
    alembic.command.upgrade(config, "head")


def require_known(revisions: Sequence[str], database: str) -> None:
    """Refuses tables that this version cannot read.

    Args:
        revisions: what the database says that its tables are.
        database: how messages name it.

    Raises:
        FormatVersionError: a newer edgefl wrote it, or one whose tables are no longer read.
    """
    scripts = alembic.script.ScriptDirectory(str(_MIGRATIONS))
    known = {script.revision for script in scripts.walk_revisions()}
    if _FORMER_TABLES.intersection(revisions):
        raise FormatVersionError(
            f"{database} was written by an older edgefl (tables {revisions[0]}), which this one cannot read.",
            hint="Finish its runs with the older edgefl, or choose another state folder. Nothing was touched.",
        )
    if not known.issuperset(revisions):
        raise FormatVersionError(
            f"{database} was written by a newer edgefl (tables {revisions[0]}; this one knows {max(known)}).",
            hint="Update edgefl on this machine, or choose another state folder. Nothing was touched.",
        )
