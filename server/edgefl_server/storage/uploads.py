"""Messages on their way in: files that grow as bytes arrive, and wait for the rest when a connection breaks."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import stat
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from edgefl.errors import storage_error
from edgefl.hashing import new_sha256
from edgefl.wire.words import is_hash, is_name

__all__ = ["Upload", "Uploads"]

_LONGEST_AGE_SECONDS = 3600.0
"""A device that does not go on for so long has another connection, or none: it begins anew."""
_BLOCK_BYTES = 1 << 20


@dataclass
class _Kept:
    task_id: str
    digest: str
    path: Path
    touched: float
    open: bool = False


class Uploads:
    """Keeps what has arrived of messages, in files of one folder; at most one of each device.

    Nothing here is durable or trusted: a file is complete when its hash is the announced one.

    Args:
        folder: created when it is missing; on the same file system as what complete files are moved to.
        now: a clock that is never set.

    Raises:
        StorageError: the folder cannot be used.
    """

    def __init__(self, folder: Path, now: Callable[[], float] = time.monotonic) -> None:
        self._folder, self._now = folder, now
        self._kept: dict[str, _Kept] = {}
        self._guard = threading.Lock()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for path in list(folder.iterdir()):
                is_file = stat.S_ISREG(path.lstat().st_mode)
                device, _, rest = path.name.partition(".")
                task_id, _, digest = rest.rpartition(".")
                if is_file and is_name(device) and is_name(task_id) and is_hash(digest) and device not in self._kept:
                    self._kept[device] = _Kept(task_id, digest, path, now())
                else:
                    _delete(path)
        except OSError as error:
            raise storage_error(error, "create", folder) from error

    def received(self, device: str, task_id: str, digest: str) -> int:
        """Says how many bytes of a message are here; what is no file any more is dropped.

        Raises:
            StorageError: the file cannot be read.
        """
        kept = self._kept.get(device)
        if kept is None or (kept.task_id, kept.digest) != (task_id, digest):
            return 0
        try:
            entry = kept.path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return 0
        except OSError as error:
            raise storage_error(error, "read", kept.path) from error
        if not stat.S_ISREG(entry.st_mode):
            self.forget(device)
            return 0
        return entry.st_size

    def open(self, device: str, task_id: str, digest: str | None) -> Upload:
        """Opens a file for what arrives: after what is here of the same message; whatever else of the device goes.

        Args:
            device: who sends; only one upload of a device may be open.
            task_id: what the message is about.
            digest: the SHA-256 of the whole message; None: it is not known, and nothing is kept of a part.

        Raises:
            StorageError: the file cannot be made.
        """
        if digest is None or self.received(device, task_id, digest) == 0:
            self.forget(device)
        # Both come from outside, but neither gets here that is not known to the database or a hash.
        path = self._folder / f"{device}.{task_id}.{digest or 'whole'}"
        upload = Upload(path, self._now, lambda: self._forget(device, path))
        with self._guard:
            self._kept[device] = upload.kept = _Kept(task_id, digest or "", path, self._now(), open=True)
        return upload

    def anonymous(self) -> Upload:
        """Opens a file for something that is used or thrown away at once.

        Raises:
            StorageError: the file cannot be made.
        """
        return Upload(self._folder / f"{secrets.token_hex(16)}.file", self._now, lambda: None)

    def forget(self, device: str) -> None:
        """Deletes what is here of a device's message."""
        with self._guard:
            kept = self._kept.pop(device, None)
        if kept is not None:
            with contextlib.suppress(OSError):  # the next start of the server deletes what nobody knows
                _delete(kept.path)

    def tasks(self) -> list[str]:
        """The tasks of which something is here."""
        with self._guard:
            return [kept.task_id for kept in self._kept.values()]

    def sweep(self, wanted: Collection[str]) -> None:
        """Deletes what is too old or belongs to no wanted task, but for what is just arriving."""
        with self._guard:
            old = self._now() - _LONGEST_AGE_SECONDS
            ended = [
                device
                for device, kept in self._kept.items()
                if not kept.open and (kept.touched < old or kept.task_id not in wanted)
            ]
        for device in ended:
            self.forget(device)

    def _forget(self, device: str, path: Path) -> None:
        with self._guard:
            if device in self._kept and self._kept[device].path == path:
                del self._kept[device]


class Upload:
    """One message that is arriving. Whoever opened it ends it with `keep`, `discard` or `finish` and moving the file.

    Attributes:
        path: where its bytes are.
        received: how many.
        kept: its entry among all, once it has one.
    """

    def __init__(self, path: Path, now: Callable[[], float], gone: Callable[[], None]) -> None:
        self.path, self._now, self._gone = path, now, gone
        self.kept: _Kept | None = None
        self.received = 0
        self._sha256 = new_sha256()
        try:
            path.parent.mkdir(exist_ok=True)  # somebody may have removed it
            # Unbuffered: a full disk is noticed where it is written to, not when the file is closed.
            self._file = path.open("a+b", buffering=0)
            self._file.seek(0)
            while block := self._file.read(_BLOCK_BYTES):
                self._sha256.update(block)
                self.received += len(block)
        except OSError as error:
            raise storage_error(error, "write", path) from error

    def write(self, data: bytes | bytearray) -> None:
        """Adds what arrived.

        Raises:
            StorageError: no space; nothing of the message is kept.
        """
        try:
            view = memoryview(data)
            while view:
                view = view[self._file.write(view) :]
        except OSError as error:
            self.discard()
            raise storage_error(error, "write", self.path) from error
        self._sha256.update(data)
        self.received += len(data)
        if self.kept is not None:
            self.kept.touched = self._now()

    def read(self) -> bytes:
        """All that has arrived.

        Raises:
            StorageError: the disk does not give it back.
        """
        # Not mapped: a page of a failing disk would end the process, a read raises.
        try:
            return self.path.read_bytes()
        except OSError as error:
            raise storage_error(error, "read", self.path) from error

    def digest(self) -> str:
        """The SHA-256 of what has arrived."""
        return str(self._sha256.hexdigest())

    def keep(self) -> None:
        """Ends it for now; the rest may follow."""
        self._file.close()
        if self.kept is not None:
            self.kept.touched, self.kept.open = self._now(), False

    def discard(self) -> None:
        """Ends it and deletes what arrived; nothing happens when it was moved away."""
        self._file.close()
        with contextlib.suppress(OSError):  # moved away, or deleted by the next start
            self.path.unlink()
        self._gone()


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
