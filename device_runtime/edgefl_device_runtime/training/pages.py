"""Gives back the memory of a model file's pages once they have been read."""

from __future__ import annotations

import contextlib
import ctypes
import os
from pathlib import Path

__all__ = ["release_pages"]

_DONT_NEED = 4
"""MADV_DONTNEED of Linux: pages of a file are read again should anybody need them again."""


def release_pages(path: str | os.PathLike[str]) -> None:
    """Lets go of every page of a file that this process has mapped to read it; nothing else changes.

    The initial values of the weights lie in the file and are read once, into variables: without this they would count
    twice for as long as the model is loaded. Where the system is not Linux nothing happens.

    Args:
        path: of the file.
    """
    with contextlib.suppress(OSError, ValueError, AttributeError):  # no /proc, no madvise: memory is all it costs
        inode = str(Path(path).stat().st_ino)
        advise = ctypes.CDLL(None).madvise
        for line in Path("/proc/self/maps").read_text().splitlines():
            # addresses, permissions, offset, device, inode, path
            addresses, permissions, _, _, number, *name = line.split(maxsplit=5)
            if number == inode and name and Path(name[0]).samefile(path) and "w" not in permissions:
                start, end = (int(each, 16) for each in addresses.split("-"))
                advise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _DONT_NEED)
