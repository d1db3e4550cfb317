"""Brings models and weights onto the disk: bounded by what the task announces, and going on where it was cut off."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from edgefl.errors import EdgeflError, HashMismatchError, StorageError, storage_error
from edgefl.hashing import sha256
from edgefl.wire.calls import DIFFERENCE, MOST_HELD
from edgefl.wire.differences import split
from edgefl_device_runtime.agent.cache import Cache, file_hash
from edgefl_device_runtime.agent.connection import Connection
from edgefl_device_runtime.agent.replies import NotReachedError, Reply, UnexpectedReplyError

__all__ = ["download", "free_bytes", "no_room"]


def download(
    connection: Connection,
    path: str,
    content_hash: str,
    cache: Cache,
    announced: int = 0,
    check: Callable[[], None] = lambda: None,
    *,
    by_difference: bool = False,
) -> Path:
    """Brings content into a cache; goes on where an earlier attempt, also of another process, was cut off.

    Args:
        connection: to the server.
        path: from ``/v1``.
        content_hash: SHA-256 of what is wanted.
        cache: where to.
        announced: bytes that it measures; 0: not said.
        check: called before every attempt and every piece; may raise to end it.
        by_difference: it is weights, and the cache may hold earlier ones: what changed is enough.

    Returns:
        Where it lies.

    Raises:
        UnexpectedReplyError: the server does not hand it out.
        HashMismatchError: a download from beginning to end was not what its hash says, or is longer than announced.
        StorageError: it cannot be stored; nothing of it stays.
        AuthenticationError: the server does not accept this device.
    """
    found = cache.find(content_hash)
    if found is not None:
        return found
    part = cache.part(content_hash)
    resumed = part.exists()
    if announced > connection.settings.longest_download:
        raise no_room(part, announced, connection.settings.longest_download)
    fetch = _Fetch(connection, path, content_hash, cache, announced, check)
    if by_difference and not resumed and announced:
        fetch.held = cache.others(content_hash)[:MOST_HELD]
    connection.patiently(fetch)
    try:
        return cache.adopt(content_hash)
    except HashMismatchError:
        if not resumed:
            raise
    # The older part may have been damaged; a whole download decides.
    connection.patiently(fetch)
    return cache.adopt(content_hash)


class _Fetch:
    """One attempt: appends to the part what is missing.

    Attributes:
        held: hashes of earlier weights in the cache, from which a difference may lead to what is wanted.
    """

    def __init__(
        self,
        connection: Connection,
        path: str,
        content_hash: str,
        cache: Cache,
        announced: int,
        check: Callable[[], None],
    ) -> None:
        self._connection = connection
        self._path = path
        self._hash = content_hash
        self._cache = cache
        self._announced = announced
        self._check = check
        self._part = cache.part(content_hash)
        self.held: list[str] = []

    def __call__(self) -> None:
        self._check()
        start = self._part.stat().st_size if self._part.exists() else 0
        if self._announced and start >= self._announced:
            if start == self._announced:
                return  # nothing is missing; the hash decides
            self._drop_part()
            start = 0
        most = self._room(start)
        headers = {"Range": f"bytes={start}-"} if start else {}
        if self.held and not start:
            headers = {"A-IM": DIFFERENCE, "If-None-Match": ", ".join(f'"{each}"' for each in self.held)}
        with self._connection.stream("GET", self._path, headers=headers, longest=most) as response:
            reply = Reply(response.status, response.headers, b"")
            if response.status == 416 and start:
                self._complete_or_nothing(reply)
                return
            if response.status == 226 and self.held and not start:
                self._connection.judge(reply, lambda reply: reply.is_content(self._hash))
                if self._apply(response, reply, most):
                    return
                self.held = []
                raise NotReachedError("difference", f"GET {self._path}: the difference that was sent leads elsewhere.")
            if response.status not in (200, 206):
                # An error has a short body, and only with it one can tell whose it is.
                body = response.read(self._connection.settings.longest_control_answer, decode_content=False)
                error = self._connection.judge(Reply(response.status, response.headers, body), lambda reply: False)
                raise UnexpectedReplyError(error, f"GET {self._path}")
            self._connection.judge(reply, lambda reply: reply.is_content(self._hash))
            if response.status == 206 and not reply.starts_at(start):
                self._drop_part()
                raise NotReachedError("range", f"GET {self._path}: the server sent another range than asked for.")
            pieces = response.stream(self._connection.settings.piece, decode_content=False)
            size = self._store(pieces, start if response.status == 206 else 0, most)
        if size < self._announced and not reply.has_end:
            # Only the end of the connection was the end of the answer, and this is not all.
            raise NotReachedError(
                "short",
                f"GET {self._path}: the connection ended after {size} of {self._announced} bytes.",
                progress=size > start,
            )

    def _apply(self, response: Any, reply: Reply, most: int) -> bool:
        """Makes the part of weights that are here and what they are told to have changed by; False: that failed."""
        base = reply.headers.get("Delta-Base", "").strip('"')
        found = self._cache.find(base) if base in self.held else None
        sent = b""
        for piece in response.stream(self._connection.settings.piece, decode_content=False):
            self._check()
            self._connection.add(down=len(piece))
            sent += piece
            if len(sent) >= most:  # the weights themselves would be no longer
                return False
        if found is None:
            return False
        try:
            weights = np.fromfile(found, "<f4").astype(np.float32, copy=False)
            for each in split(sent):
                weights = each.applied(weights)
            content = weights.astype("<f4", copy=False).tobytes()
            if sha256(content) != self._hash:
                return False
            self._part.write_bytes(content)
        except (EdgeflError, MemoryError):  # then the whole weights are fetched
            return False
        except OSError as error:
            with contextlib.suppress(OSError):  # on a full disk it would only be in the way
                self._part.unlink(missing_ok=True)
            raise storage_error(error, "store", self._part) from error
        return True

    def _store(self, pieces: Iterable[bytes], size: int, most: int) -> int:
        """Appends to the first bytes of the part; returns how many it then has."""
        try:
            with self._part.open("ab" if size else "wb") as file:
                for piece in pieces:
                    self._check()
                    self._connection.add(down=len(piece))
                    size += len(piece)
                    if size > most:
                        break
                    file.write(piece)
        except OSError as error:
            with contextlib.suppress(OSError):  # on a full disk it would only be in the way
                self._part.unlink(missing_ok=True)
            raise storage_error(error, "store", self._part) from error
        if size > most:
            self._part.unlink(missing_ok=True)
            if self._announced:
                raise HashMismatchError(
                    f"Expected the {self._announced} bytes that the task announces, got more from {self._path}."
                )
            raise no_room(self._part, size, most)
        return size

    def _complete_or_nothing(self, reply: Reply) -> None:
        """Nothing lies behind the part: it is whole, or damaged. Whoever says so, the hash decides."""
        try:
            whole = file_hash(self._part) == self._hash
        except OSError as error:
            raise storage_error(error, "read", self._part) from error
        if not whole:
            if reply.headers.get("Content-Range", "").startswith("bytes */"):
                self._drop_part()
            raise NotReachedError("range", f"GET {self._path}: nothing was sent behind what is there already.")

    def _drop_part(self) -> None:
        try:
            self._part.unlink(missing_ok=True)
        except OSError as error:
            raise storage_error(error, "delete", self._part) from error

    def _room(self, start: int) -> int:
        """The most bytes that the whole may have.

        Raises:
            StorageError: there is no room for what is announced; nothing was written, and the part is gone.
        """
        settings = self._connection.settings
        room = free_bytes(self._part.parent) - settings.spare_disk + start
        if room < max(self._announced, 1):
            self._cache.make_room(self._hash)
            room = free_bytes(self._part.parent) - settings.spare_disk + start
        if room < max(self._announced, 1):
            self._part.unlink(missing_ok=True)
            raise no_room(self._part, self._announced, max(room, 0))
        return self._announced or min(settings.longest_download, room)


def free_bytes(folder: Path) -> int:
    """Counts the bytes that this process may still write onto a folder's disk.

    Raises:
        StorageError: the folder is not there.
    """
    try:
        found = os.statvfs(folder)
    except OSError as error:
        raise storage_error(error, "look at", folder) from error
    return found.f_bavail * found.f_frsize


def no_room(path: Path, wanted: int, room: int) -> StorageError:
    """Makes the error that a write to a full disk would end in, without the writing."""
    full = OSError(errno.ENOSPC, f"it measures {wanted} bytes, and there is room for {room}")
    error = storage_error(full, "store", path)
    error.__cause__ = full
    return error
