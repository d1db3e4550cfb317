"""Differences between versions of the weights, on disk. Each is worth a download that is shorter, and nothing else."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection
from pathlib import Path

from edgefl.atomic import write_bytes
from edgefl.errors import StorageError
from edgefl.wire.differences import LONGEST_CHAIN, join
from edgefl.wire.words import is_hash

__all__ = ["Differences"]

_KEPT = 512
"""Files; the oldest go first. Who is further behind fetches the weights."""


class Differences:
    """A folder of differences: a file ``<hash of the newer weights>.<hash of the older>`` each.

    Whoever fetches one compares what comes of it with the hash of the newer weights, so nothing here has to be believed
    or kept.

    Args:
        folder: made when something is kept.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, newer: str, older: str, difference: bytes) -> None:
        """Keeps a difference, if there is room for it.

        Args:
            newer: SHA-256 of the weights that it leads to.
            older: of those that it starts from.
            difference: encoded.
        """
        with contextlib.suppress(OSError, StorageError):  # devices fetch the whole weights without it
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_bytes(self._folder / f"{newer}.{older}", difference, mode=0o600)
            files = sorted(self._folder.iterdir(), key=lambda path: path.stat().st_mtime)
            for path in files[:-_KEPT]:
                path.unlink()

    def chain(self, newer: str, held: Collection[str], most: int) -> tuple[str, bytes] | None:
        """Finds the way from weights that somebody holds.

        Args:
            newer: SHA-256 of the weights that are wanted.
            held: hashes of those that are there.
            most: bytes from which on the whole is not longer.

        Returns:
            From which of them, and the differences as `edgefl.wire.differences.join` puts them together; None: there is
            no way, or none that is shorter.
        """
        try:
            before = {name[:64]: name[65:] for name in os.listdir(self._folder)}  # noqa: PTH208 - names only
            found: list[bytes] = []
            at, size = newer, 0
            while len(found) < LONGEST_CHAIN and is_hash(older := before.get(at, "")):
                found.append((self._folder / f"{at}.{older}").read_bytes())
                at, size = older, size + 4 + len(found[-1])
                if size >= most:
                    return None
                if at in held:
                    return at, join(reversed(found))
        except OSError:
            pass  # the whole is there
        return None
