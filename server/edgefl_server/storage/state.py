"""The state folder of a server: what is in it, and that only one server uses it."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgefl.errors import StorageError, storage_error
from edgefl_server.storage.blobs import BlobStore, FolderBlobs
from edgefl_server.storage.database import Database
from edgefl_server.storage.uploads import Uploads

__all__ = ["ServerState", "get_vector", "put_vector"]


class ServerState:
    """Everything that a server knows, on disk.

    Args:
        folder: created when it is missing, for its owner only.
        clock: seconds since 1970.

    Attributes:
        database: rows.
        models: model files.
        weights: flat vectors of little-endian float32: weights, and the slots of strategies.
        outcomes: accepted messages that are not folded yet, or were discarded.
        uploads: messages that are arriving.
        clock: the time.

    Raises:
        StorageError: another server uses the folder, or it cannot be written.
    """

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        self.folder = folder
        self.clock = clock
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = (folder / "lock").open("ab")
        except OSError as error:
            raise storage_error(error, "open", folder) from error
        try:
            # The kernel drops it with the process, so that kill -9 leaves nothing to clean up.
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._lock.close()
            raise StorageError(
                f"Another server uses the state folder {folder}.",
                hint="Stop it first, or give this one another --state.",
            ) from error
        try:
            self.database = Database(folder / "server.sqlite")
            self.models: BlobStore = FolderBlobs(folder / "models")
            self.weights: BlobStore = FolderBlobs(folder / "weights")
            self.outcomes: BlobStore = FolderBlobs(folder / "outcomes")
            self.uploads = Uploads(folder / "uploads")
        except BaseException:
            self._lock.close()
            raise

    def close(self) -> None:
        """Closes the database and lets another server use the folder."""
        self.database.close()
        self._lock.close()


def put_vector(state: ServerState, vector: NDArray[np.float32]) -> str:
    """Keeps weights or a slot; the hash by which they are found."""
    return state.weights.put(vector.astype("<f4", copy=False).tobytes())


def get_vector(state: ServerState, digest: str) -> NDArray[np.float32]:
    """What `put_vector` kept, float32, read-only.

    Raises:
        StorageError: there is nothing with this hash, or it is damaged.
    """
    return np.frombuffer(state.weights.get(digest), "<f4")
