"""Finds data that installed packages bring, without running a line of their code."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from edgefl.errors import DataError

__all__ = ["package_folder"]


def package_folder(module: str, missing: str, hint: str) -> Path:
    """The folder of an installed package.

    Args:
        module: the name that it is imported by.
        missing: the error's message where it is not installed.
        hint: what to do then.

    Raises:
        DataError: it is not installed.
    """
    package = importlib.util.find_spec(module)
    if package is None or not package.submodule_search_locations:
        raise DataError(missing, hint=hint)
    return Path(package.submodule_search_locations[0])
