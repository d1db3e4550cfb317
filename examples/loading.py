"""Loads a model file without the line that the interpreter's C++ code writes to standard error each time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgefl import TrainableModel

__all__ = ["load_model"]


def load_model(path: Path) -> TrainableModel:
    """The model, on the faster runtime that is installed; failures are exceptions as ever."""
    with _without_standard_error():
        return TrainableModel(path)


@contextmanager
def _without_standard_error() -> Iterator[None]:
    # Below Python's own sys.stderr, which C++ does not know.
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
