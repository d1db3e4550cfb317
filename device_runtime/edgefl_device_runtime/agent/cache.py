"""Models and weights on disk under the hash of their content."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from pathlib import Path

from edgefl.errors import HashMismatchError, storage_error
from edgefl.hashing import new_sha256
from edgefl.wire.words import check_hash, is_hash

__all__ = ["Cache", "file_hash"]

_PIECE = 1 << 18


class Cache:
    """A folder of files named by the SHA-256 of what they hold.

    A file whose content is not what its name says counts as absent and is removed, so memory cards that lose writes
    cost a download and nothing else. What is still being downloaded lies beside as ``<hash>.part``.

    Args:
        folder: made when it is missing.
        kept: how many files stay; the least recently used go first.

    Raises:
        StorageError: the folder cannot be made.
    """

    def __init__(self, folder: Path, kept: int) -> None:
        self.folder = folder
        self.kept = kept
        self._verified: set[str] = set()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage_error(error, "make the folder", folder) from error

    def path(self, content_hash: str) -> Path:
        """The file in which the content lies, or will lie.

        Raises:
            MessageError: the hash is none. It comes from outside, and nothing else may become part of a path.
        """
        return self.folder / check_hash(content_hash, "a hash")

    def others(self, content_hash: str) -> list[str]:
        """The hashes of what else is here, the most recently used first; whether it is intact is for `find` to say.

        Args:
            content_hash: of what is wanted.
        """
        try:
            files = [path for path in self.folder.iterdir() if is_hash(path.name) and path.name != content_hash]
            return [path.name for path in sorted(files, key=_last_use, reverse=True)]
        except OSError:  # it only makes a download longer
            return []

    def part(self, content_hash: str) -> Path:
        """The file in which its download is collected; see `path`. What else lies in its place is removed."""
        return self._only_a_file(self.folder / f"{check_hash(content_hash, 'a hash')}.part")

    def find(self, content_hash: str) -> Path | None:
        """The file with that content, or None. Its content is hashed once in a process.

        Raises:
            StorageError: it is there and cannot be read.
        """
        path = self._only_a_file(self.path(content_hash))
        try:
            if content_hash not in self._verified:
                if file_hash(path) != content_hash:
                    path.unlink()
                    return None
                self._verified.add(content_hash)
            os.utime(path)
        except FileNotFoundError:
            self._verified.discard(content_hash)
            return None
        except OSError as error:
            raise storage_error(error, "read", path) from error
        return path

    def adopt(self, content_hash: str) -> Path:
        """Takes a finished download over and removes files that are no longer used.

        Raises:
            HashMismatchError: the download is not the content; it is deleted.
            StorageError: it cannot be read or renamed.
        """
        part, path = self.part(content_hash), self.path(content_hash)
        try:
            actual = file_hash(part)
            if actual != content_hash:
                part.unlink()
                raise HashMismatchError(
                    f"Expected content with SHA-256 {content_hash[:12]}…, got {actual[:12]}….",
                    hint="Something between this device and the server changes what is sent.",
                )
            part.replace(path)
        except OSError as error:
            raise storage_error(error, "store", path) from error
        self._verified.add(content_hash)
        self._remove_old(content_hash)
        return path

    def drop_parts(self, *wanted: str) -> None:
        """Removes what is left of downloads that nobody will finish.

        Args:
            wanted: hashes of those that somebody may.
        """
        # They cost room and nothing else: the next task tries again.
        with contextlib.suppress(OSError):
            for entry in list(self.folder.glob("*.part")):
                if entry.stem not in wanted:
                    entry.unlink()

    def make_room(self, wanted: str) -> None:
        """Removes everything except what there is of one content."""
        # Whether there is room now is looked at afterwards, whatever could be removed.
        with contextlib.suppress(OSError):
            for entry in list(self.folder.iterdir()):
                if entry.name.partition(".")[0] != wanted:
                    self._verified.discard(entry.name)
                    entry.unlink()

    def _only_a_file(self, path: Path) -> Path:
        """Removes what is none: a folder could not be replaced by a download, and a pipe would be waited for."""
        try:
            mode = path.lstat().st_mode
            if stat.S_ISDIR(mode):
                shutil.rmtree(path)
            elif not stat.S_ISREG(mode):
                path.unlink()
        except FileNotFoundError:
            pass
        except OSError as error:
            raise storage_error(error, "delete", path) from error
        return path

    def _remove_old(self, newest: str) -> None:
        # Nothing is lost when a file cannot be removed: the next adoption tries again.
        with contextlib.suppress(OSError):
            files = [entry for entry in self.folder.iterdir() if entry.name != newest]
            finished = sorted((entry for entry in files if entry.suffix != ".part"), key=_last_use, reverse=True)
            for entry in [*finished[self.kept - 1 :], *(entry for entry in files if entry.suffix == ".part")]:
                self._verified.discard(entry.name)
                entry.unlink()


def file_hash(path: Path) -> str:
    """The SHA-256 of a file, read in pieces.

    Raises:
        OSError: it cannot be read.
    """
    digest = new_sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return str(digest.hexdigest())


def _last_use(path: Path) -> float:
    return path.stat().st_mtime
