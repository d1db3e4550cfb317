"""The state folder of a server: what is in it, and that only one server uses it."""

from __future__ import annotations

import contextlib
import fcntl
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgefl.errors import StorageError, storage_error
from edgefl_server.aggregation import SettingError
from edgefl_server.storage.barring import Barring
from edgefl_server.storage.blobs import BlobStore, FolderBlobs
from edgefl_server.storage.clock import Moment, Reading, ServerClock, boot_id, seconds_since_boot
from edgefl_server.storage.database import Database
from edgefl_server.storage.differences import Differences
from edgefl_server.storage.doubles import Doubles
from edgefl_server.storage.fetched import Fetched
from edgefl_server.storage.folder import Mark, check_folder, make_private, read_mark, require_own, write_mark
from edgefl_server.storage.placements import Placements
from edgefl_server.storage.postgresql import PostgresqlDatabase, database_name, inspect_postgresql
from edgefl_server.storage.seen import Seen
from edgefl_server.storage.sqlite import SqliteDatabase, inspect_sqlite
from edgefl_server.storage.tables import FolderRow
from edgefl_server.storage.troubles import STORE, Troubles
from edgefl_server.storage.uploads import Uploads

__all__ = ["DEFAULT_KEEP_DAYS", "SECONDS_PER_DAY", "Files", "ServerState", "get_vector", "put_vector"]

DEFAULT_KEEP_DAYS = 7.0
SECONDS_PER_DAY = 86_400.0
_MARK = "say how far the database has come"


class Files(Protocol):
    """The part of a `ServerState` that is in files: all that a fold is made of."""

    folder: Path
    weights: BlobStore
    outcomes: BlobStore
    placements: Placements


class ServerState:
    """Everything that a server knows, on disk.

    Args:
        folder: created when it is missing; made its owner's only.
        clock: seconds that only grow; None: a clock that goes on where that of the last server in this folder was.
        date: seconds since 1970 in UTC.
        keep_days: how long outcomes that will never be folded are kept.
        database: the URL of a PostgreSQL database; None: a file of SQLite's in the folder.

    Attributes:
        database: rows.
        models: model files.
        weights: flat vectors of little-endian float32: weights, and the slots of strategies.
        differences: between versions of weights, for devices that hold the older one.
        data: of operators, on which versions are evaluated.
        outcomes: accepted messages that are not folded yet, or were discarded.
        placements: where the vectors of accepted updates lie in them.
        uploads: messages that are arriving.
        orphans: the folder for files among the outcomes that no row names.
        clock: the server's clock, for everything that measures a duration.
        date: the wall clock, for what people read.
        keep_seconds: `keep_days` in seconds.
        troubles: what does not work right now.
        doubles: devices that exist twice.
        seen: when devices called last.
        barring: devices that are blocked, removed or limited.
        intact: inode, size and time of change of blobs whose content was seen to have their hash.
        unrecorded: intact outcomes that no row named at the start, by the task that they answer.
        folded: outcomes in `outcomes` that are part of the weights; see `settle_folds`.
        fetched: bytes that devices have fetched for each run since its latest fold, as far as this process knows.

    Raises:
        SettingError: `keep_days` is no number of days.
        StorageError: another server uses the folder, it cannot be written, holds somebody else's files, or what is in
            it does not fit together.
        FormatVersionError: a newer edgefl wrote it.
    """

    def __init__(
        self,
        folder: Path,
        clock: Callable[[], float] | None = None,
        date: Callable[[], float] = time.time,
        keep_days: float = DEFAULT_KEEP_DAYS,
        database: str | None = None,
    ) -> None:
        if not keep_days >= 0:
            raise SettingError(f"{{keep_days}} expects 0 or more, got {keep_days:g}.")
        self.folder = folder
        self.date = date
        self.keep_seconds = keep_days * SECONDS_PER_DAY
        self.troubles = Troubles()
        self.doubles = Doubles()
        self.seen = Seen()
        self.intact: dict[str, tuple[int, int, int]] = {}
        self.unrecorded: dict[str, Path] = {}
        self.folded: deque[str] = deque()
        self.fetched = Fetched()
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            require_own(folder)
            self._lock = (folder / "lock").open("a+b", buffering=0)  # a pipe is not waited for
        except OSError as error:
            raise storage_error(error, "open", folder) from error
        try:
            # The kernel drops it with the process, so that kill -9 leaves nothing to clean up.
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._lock.close()
            raise StorageError(
                f"Another server uses the state folder {folder}.",
                hint="Stop it first, or give this one another state folder.",
            ) from error
        try:
            self.database = _open_database(folder, database)
            self._marking, self._mark = threading.Lock(), read_mark(folder)
            self.barring = Barring(self.database)
            saved, full = self._adopt()
            self._own_clock = None
            if clock is None:
                self._own_clock = ServerClock(saved, boot_id(), seconds_since_boot, date)
            self.clock: Callable[[], float] = clock or self._own_clock  # type: ignore[assignment]
            self.models: BlobStore = FolderBlobs(folder / "models", self.clock)
            self.weights: BlobStore = FolderBlobs(folder / "weights", self.clock)
            self.data: BlobStore = FolderBlobs(folder / "data", self.clock)
            self.outcomes: BlobStore = FolderBlobs(folder / "outcomes", self.clock)
            self.differences = Differences(folder / "differences")
            self.placements = Placements(self.outcomes)
            self.uploads = Uploads(folder / "uploads")
            self.orphans = folder / "orphans"
            if full is None:
                self.keep_time()
            else:
                self.troubles.note("", STORE, full, self.clock())
            self.keep_generation()
        except BaseException:
            if hasattr(self, "database"):
                self.database.close()
            self._lock.close()
            raise

    def now(self) -> Moment:
        """This moment on both clocks."""
        return Moment(self.clock(), self.date())

    def keep_time(self) -> None:
        """Keeps what the clock says, so that it goes on from there when the machine is started again.

        Raises:
            StorageError: no space.
        """
        if self._own_clock is None:
            return
        reading = self._own_clock.reading()
        with self.database.write() as session:
            row = session.get_one(FolderRow, 1)
            row.clock, row.date, row.boot, row.boottime = reading.clock, reading.date, reading.boot, reading.boottime

    def keep_generation(self) -> None:
        """Says beside the database how far it has come, so that an older one is not taken for it.

        What cannot be said now is noted, and said the next time: no harm comes from a mark that is too low.
        """
        with self._marking:
            try:
                self.database.checkpoint()
                with self.database.read() as session:
                    row = session.row(FolderRow, row=1)
                    mark = Mark(row.folder, row.generation)
                if mark != self._mark:
                    write_mark(self.folder, mark)
                    self._mark = mark
            except StorageError as error:
                self.troubles.note("", _MARK, error, self.clock())
            else:
                self.troubles.clear("", _MARK)

    def close(self) -> None:
        """Closes the database and lets another server use the folder."""
        if not self._lock.closed:
            with contextlib.suppress(StorageError):  # the clock was kept a minute ago at most
                self.keep_time()
            self.keep_generation()
        self.database.close()
        self._lock.close()

    def _adopt(self) -> tuple[Reading | None, StorageError | None]:
        """Counts the start, and gives a folder its id; the clock's last reading, and why nothing was written.

        A full disk keeps no server from starting that has everything it needs: it answers with what is there.
        """
        full = None
        try:
            with self.database.write() as session:
                row = session.get(FolderRow, 1)
                if row is None:
                    row = FolderRow(
                        row=1,
                        folder=secrets.token_hex(16),
                        generation=0,
                        clock=0.0,
                        date=0.0,
                        boot="",
                        boottime=0.0,
                    )
                    session.add(row)
                row.generation += 1
        except StorageError as error:
            if not error.full:
                raise
            full = error
            with self.database.read() as session:
                row = session.get(FolderRow, 1)
            if row is None:
                raise
        return Reading(row.clock, row.date, row.boot, row.boottime) if row.clock else None, full


def _open_database(folder: Path, url: str | None) -> Database:
    """Opens the database once it is known to fit what lies in the folder."""
    file = folder / "server.sqlite"
    if url is None:
        check_folder(folder, inspect_sqlite(file))
        make_private(folder)
        return SqliteDatabase(file)
    if file.exists():
        raise StorageError(
            f"{folder} has a database already, {file.name}, and another one was asked for.",
            hint="Start the server without it; or give the other one a new state folder.",
        )
    check_folder(folder, inspect_postgresql(url), database_name(url))
    make_private(folder)
    return PostgresqlDatabase(url)


def put_vector(state: Files, vector: NDArray[np.float32]) -> str:
    """Keeps weights or a slot; the hash by which they are found."""
    return state.weights.put(vector.astype("<f4", copy=False).tobytes())


def get_vector(state: Files, digest: str) -> NDArray[np.float32]:
    """Reads what `put_vector` kept, float32, read-only.

    Raises:
        DamagedBlobError: there is nothing with this hash, or it is damaged.
        StorageError: it cannot be read now.
    """
    return np.frombuffer(state.weights.get(digest), "<f4")
