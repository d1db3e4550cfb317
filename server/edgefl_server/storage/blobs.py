"""Large bytes by the hash of their content."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from edgefl.atomic import sync_folder, write_bytes
from edgefl.errors import StorageError, storage_error
from edgefl.hashing import new_sha256, sha256
from edgefl.wire.words import is_hash
from edgefl_server.storage.together import Together

__all__ = ["BlobStore", "DamagedBlobError", "FolderBlobs"]

_PIECE_BYTES = 1 << 20
_FAILING_SECONDS = 600.0
"""A place of the disk that has not been readable for so long will not be."""
_TOGETHER = 64
"""Files that are moved before the folder is brought to the disk for all of them."""
_NO_FILE = (errno.EISDIR, errno.ENOTDIR, errno.ELOOP)


class DamagedBlobError(StorageError):
    """Bytes that were kept are gone or are other ones: trying again does not bring them back."""


class BlobStore(Protocol):
    """A store of models, weights and outcomes."""

    def put(self, data: bytes | memoryview) -> str:
        """Keeps bytes; they survive a power cut once this returns. The same bytes again change nothing.

        Returns:
            Their SHA-256, by which they are found.

        Raises:
            StorageError: no space; nothing was left half-written.
        """
        ...

    def adopt(self, file: Path, digest: str) -> None:
        """Does what `put` does with a file of the same file system, which is moved here.

        Args:
            file: whole, and nobody writes to it any more.
            digest: its SHA-256.

        Raises:
            StorageError: it could not be moved; it may lie where it was.
        """
        ...

    def get(self, digest: str) -> bytes:
        """The bytes, checked against their hash.

        Raises:
            DamagedBlobError: there are none, or they are damaged.
            StorageError: they cannot be read now.
        """
        ...

    def verify(self, digest: str) -> None:
        """Does what `get` does with bytes that need not be in memory."""
        ...

    def path(self, digest: str) -> Path | None:
        """A local file with the bytes, if there is one."""
        ...

    def size(self, digest: str) -> int:
        """The number of bytes.

        Raises:
            StorageError: there are none.
        """
        ...

    def delete(self, digest: str) -> None:
        """Forgets bytes; nothing happens when there are none."""
        ...

    def __iter__(self) -> Iterator[str]:
        """The hashes of all blobs."""
        ...


class FolderBlobs:
    """Blobs as files of a local folder, named by hash.

    Args:
        folder: created when it is missing.
        now: a clock that is never set.
        owner: False where another process may be writing to the folder, whose unfinished files are not to be deleted.
    """

    def __init__(self, folder: Path, now: Callable[[], float] = time.monotonic, *, owner: bool = True) -> None:
        self._folder, self._now = folder, now
        self._together: Together[tuple[Path, Path], None] = Together(self._rename, _TOGETHER)
        self._failing: dict[str, float] = {}
        """The times since which the disk has not given a blob back."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            sync_folder(folder.parent)
            for unfinished in folder.glob(".*.part") if owner else ():
                unfinished.unlink()
        except OSError as error:
            raise storage_error(error, "create", folder) from error

    def put(self, data: bytes | memoryview) -> str:
        """See `BlobStore`."""
        digest = sha256(data)
        self._require_folder()
        write_bytes(self._folder / digest, data, durable=True)
        return digest

    def adopt(self, file: Path, digest: str) -> None:
        """See `BlobStore`."""
        target = self._file(digest)
        self._require_folder()
        try:
            descriptor = os.open(file, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            self._together((file, target))
        except OSError as error:
            raise storage_error(error, "write", target) from error

    def get(self, digest: str) -> bytes:
        """See `BlobStore`."""
        with self._reading(digest) as path:
            data = path.read_bytes()
        if sha256(data) != digest:
            raise _other_content(path)
        return data

    def verify(self, digest: str) -> None:
        """See `BlobStore`."""
        found = new_sha256()
        with self._reading(digest) as path, path.open("rb") as file:
            while piece := file.read(_PIECE_BYTES):
                found.update(piece)
        if found.hexdigest() != digest:
            raise _other_content(path)

    def path(self, digest: str) -> Path | None:
        """See `BlobStore`."""
        path = self._file(digest)
        return path if path.is_file() else None

    def size(self, digest: str) -> int:
        """See `BlobStore`."""
        path = self._file(digest)
        try:
            return path.stat().st_size
        except OSError as error:
            raise storage_error(error, "read", path) from error

    def delete(self, digest: str) -> None:
        """See `BlobStore`."""
        path = self._file(digest)
        self._failing.pop(digest, None)
        try:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise storage_error(error, "delete", path) from error

    def __iter__(self) -> Iterator[str]:
        """See `BlobStore`."""
        return (name for name in os.listdir(self._folder) if is_hash(name))  # noqa: PTH208 - names only

    @contextmanager
    def _reading(self, digest: str) -> Iterator[Path]:
        """Tells what is damaged for good from what may pass."""
        path = self._file(digest)
        try:
            if not stat.S_ISREG(path.stat().st_mode):  # to read a pipe would wait for ever
                raise DamagedBlobError(f"Could not read {path}: it is no file any more.")
            yield path
        except FileNotFoundError as error:
            raise DamagedBlobError(f"Could not read {path}: it is gone.") from error
        except OSError as error:
            if error.errno in _NO_FILE:
                raise DamagedBlobError(f"Could not read {path}: {error.strerror}.") from error
            if error.errno == errno.EIO:
                since = self._failing.setdefault(digest, self._now())
                if self._now() - since >= _FAILING_SECONDS:
                    raise DamagedBlobError(
                        f"Could not read {path} for {_FAILING_SECONDS / 60:.0f} minutes: {error.strerror}."
                    ) from error
            raise storage_error(error, "read", path) from error
        self._failing.pop(digest, None)

    def _rename(self, take: Callable[[], Sequence[tuple[Path, Path]]]) -> list[Exception | None]:
        results: list[Exception | None] = []
        for file, target in take():
            try:
                os.replace(file, target)  # noqa: PTH105 - Path.replace hides that this is rename(2)
            except OSError as error:
                results.append(error)
            else:
                results.append(None)
        sync_folder(self._folder)
        return results

    def _require_folder(self) -> None:
        """Makes the folder again that somebody removed: what was in it is lost, what comes need not be."""
        try:
            self._folder.mkdir(exist_ok=True)
        except OSError as error:
            raise storage_error(error, "create", self._folder) from error

    def _file(self, digest: str) -> Path:
        # A hash from outside must never become a path elsewhere.
        if not is_hash(digest):
            raise StorageError("A blob is named by 64 lower-case hexadecimal digits.")
        return self._folder / digest


def _other_content(path: Path) -> DamagedBlobError:
    return DamagedBlobError(f"{path} is damaged: its content does not have the hash that it is named by.")
