"""Files that are either there in full or not there at all."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from pathlib import Path

from edgefl.errors import storage_error

__all__ = ["is_part_of", "read_bytes", "sync_folder", "write_bytes", "write_text"]

_PART = ".part"


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """Reads a file of one's own.

    Raises:
        OSError: it cannot be read, or is none: to open a pipe that lies in its place would wait for ever.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no file", os.fspath(path))
    with os.fdopen(descriptor, "rb") as file:
        return file.read()


def write_bytes(
    path: str | os.PathLike[str], data: bytes | memoryview, *, durable: bool = False, mode: int | None = None
) -> None:
    """Writes a file in one step: a reader sees the old content or all of the new one.

    Args:
        path: where; its folder must exist.
        data: the whole content.
        durable: when True, content and name survive a power cut once the call returns (file and folder fsync).
        mode: permission bits; by default those that the process's umask gives a new file.

    Raises:
        StorageError: the disk is full, the folder is missing or may not be written. The old file is intact.
    """
    path = Path(path)
    temporary = path.parent / f".{path.name}.{secrets.token_hex(8)}{_PART}"
    created = False
    try:
        # The kernel applies the umask: reading it would set it, for all threads of the process.
        descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666 if mode is None else mode & 0o600)
        created = True
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            if mode is not None:
                os.fchmod(file.fileno(), mode)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)  # noqa: PTH105 - Path.replace hides that this is rename(2)
        if durable:
            sync_folder(path.parent)
    except OSError as error:
        if created:
            with contextlib.suppress(OSError):  # the first error is the one to tell
                temporary.unlink()
        raise storage_error(error, "write", path) from error


def is_part_of(name: str, found: str) -> bool:
    """Whether a file in the same folder is what is left of a file of that name when its writer was killed.

    Args:
        name: of the whole file.
        found: of the other one.
    """
    return found.startswith(f".{name}.") and found.endswith(_PART)


def write_text(path: str | os.PathLike[str], text: str, *, durable: bool = False, mode: int | None = None) -> None:
    """Does what `write_bytes` does, with UTF-8 text."""
    write_bytes(path, text.encode(), durable=durable, mode=mode)


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """Makes renames and creations in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
