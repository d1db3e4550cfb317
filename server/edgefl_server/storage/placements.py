"""Accepted updates whose vectors stay in their files: what was checked once is not hashed and checked for each fold.

An outcome's file was compared with its hash, and its vectors with what they have to be, when it was accepted, or when a
fold read it first. As long as the file is the same one (inode, size, time of change), a fold reads pieces of it. What
was written in another way than as float32 is decoded as a whole each time.
"""

from __future__ import annotations

import math
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgefl.errors import StorageError, storage_error
from edgefl.wire.messages import Outcome
from edgefl_server.aggregation import Expectation, Stored, Update
from edgefl_server.storage.blobs import BlobStore, DamagedBlobError

__all__ = ["DamagedVectorError", "Known", "Located", "Placements"]

_MOST = 20_000
"""Updates of which so much is remembered: about a kilobyte each."""
_AS_IT_IS = "float32"
_Signature = tuple[int, int, int, int]


class DamagedVectorError(DamagedBlobError):
    """A vector that was checked is not in its file any more."""


@dataclass(frozen=True)
class Located:
    """An update without its vectors, and where in its message they are: what is kept once the message is not in memory.

    Attributes:
        update: all but its sections.
        places: the first byte and the elements of each section.
    """

    update: Update
    places: Mapping[str, tuple[int, int]]

    @classmethod
    def of(cls, data: bytes | memoryview, outcome: Outcome, update: Update) -> Located | None:
        """Finds the vectors of an update, made of an outcome that was decoded from a message; None: they are coded."""
        if any(each.codec != _AS_IT_IS for each in outcome.sections):
            return None
        begins = _address(data)
        places = {each.name: (_address(each.payload) - begins, each.length) for each in outcome.sections}
        return cls(replace(update, sections={}), places)


@dataclass(frozen=True)
class Known:
    """An update that was checked: which file it was, what it was found to fit, and where its vectors are."""

    signature: _Signature
    expected: Expectation
    located: Located


class Placements:
    """Remembers where the vectors of accepted updates lie.

    Args:
        store: of the outcomes.
    """

    def __init__(self, store: BlobStore) -> None:
        self._store = store
        self._known: OrderedDict[str, Known] = OrderedDict()
        self._lock = threading.Lock()

    def note(self, digest: str, expected: Expectation, located: Located | None) -> Update | None:
        """Remembers an update that was just checked.

        Args:
            digest: of its message, which is in the store.
            expected: what it was found to fit.
            located: see `Located.of`.

        Returns:
            The update, with vectors that stay in the file; None where this is not possible.
        """
        path = self._store.path(digest)
        signature = None if path is None else _signature(path)
        if path is None or signature is None or located is None:
            return None
        with self._lock:
            self._known[digest] = Known(signature, _of_fold(expected), located)
            while len(self._known) > _MOST:
                self._known.popitem(last=False)
        return self._placed(digest, path, located)

    def get(self, digest: str, expected: Expectation) -> Update | None:
        """An update whose file is what it was and that fits; None: its message is to be read and checked."""
        with self._lock:
            known = self._known.get(digest)
        if known is None or known.expected != _of_fold(expected):
            return None
        path = self._store.path(digest)
        if path is None or _signature(path) != known.signature:
            return None
        return self._placed(digest, path, known.located)

    def known(self, digests: Collection[str]) -> dict[str, Known]:
        """Returns what is remembered of some updates, for another process to `learn`."""
        with self._lock:
            return {digest: self._known[digest] for digest in digests if digest in self._known}

    def learn(self, known: Mapping[str, Known]) -> None:
        """Remembers what another process has checked."""
        with self._lock:
            self._known.update(known)

    def forget(self, digest: str) -> None:
        """Forgets an update: it is part of the weights, or its file cannot be read."""
        with self._lock:
            self._known.pop(digest, None)

    def _placed(self, digest: str, path: Path, located: Located) -> Update:
        placed = {
            name: FileSection(path, offset, size, lambda: self.forget(digest))
            for name, (offset, size) in located.places.items()
        }
        return replace(located.update, sections=placed)


@dataclass(frozen=True)
class FileSection:
    """A vector of little-endian float32 in a file; see `Stored`.

    Attributes:
        path: the file.
        offset: its first byte.
        size: its elements.
        failed: is called when it cannot be read.
    """

    path: Path
    offset: int
    size: int
    failed: Callable[[], None]

    def read(self, part: slice, out: NDArray[np.float32]) -> None:
        """See `Stored`.

        Raises:
            DamagedVectorError: the file is gone, or shorter than it was.
            StorageError: it cannot be read now.
        """
        try:
            self._read(self.offset + 4 * part.start, out.view(np.uint8).data)
        except StorageError:
            self.failed()
            raise

    def _read(self, start: int, room: memoryview) -> None:
        # Not mapped into memory: a disk that fails would then be a signal that ends the process.
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                while room:
                    count = os.preadv(descriptor, [room], start)
                    if not count:
                        raise DamagedVectorError(f"Could not read {self.path}: it is shorter than it was.")
                    start, room = start + count, room[count:]
            finally:
                os.close(descriptor)
        except FileNotFoundError as error:
            raise DamagedVectorError(f"Could not read {self.path}: it is gone.") from error
        except OSError as error:
            raise storage_error(error, "read", self.path) from error


_: type[Stored] = FileSection


def _of_fold(expected: Expectation) -> Expectation:
    """The part of an expectation that a fold looks at: what it counts for was settled when it was accepted."""
    return replace(expected, max_norm=math.inf, limits=None, codecs=())


def _signature(path: Path) -> _Signature | None:
    try:
        entry = path.stat()
    except OSError:
        return None
    return entry.st_ino, entry.st_size, entry.st_mtime_ns, entry.st_ctime_ns


def _address(data: bytes | memoryview) -> int:
    return int(np.frombuffer(data, np.uint8).ctypes.data) if len(data) else 0
