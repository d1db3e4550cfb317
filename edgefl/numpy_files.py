"""Reads ``.npy`` and ``.npz`` files that a user names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgefl.errors import DataError, storage_error

__all__ = ["read_arrays"]

Arrays = dict[str, NDArray[Any]] | NDArray[Any]


def read_arrays(
    path: Path, unreadable: Callable[[Exception], DataError], load: Callable[[Path], Any] = np.load
) -> Arrays:
    """The array of a file, or its arrays by name.

    Args:
        path: of the file.
        unreadable: makes the error for a file that is something else, or damaged.
        load: reads it; numpy's own by default.

    Raises:
        StorageError: the file cannot be read.
        DataError: what ``unreadable`` makes.
    """
    try:
        loaded = load(path)
        if isinstance(loaded, (np.ndarray, dict)):
            return loaded
        with loaded as archive:
            return {name: archive[name] for name in archive.files}
    except OSError as error:
        if error.errno is None:
            raise unreadable(error) from error
        raise storage_error(error, "read", path) from error
    except Exception as error:  # the readers raise what their zip and header parsers raise
        raise unreadable(error) from error
