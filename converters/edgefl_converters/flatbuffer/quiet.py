"""Keeps TensorFlow's chatter off a command's standard error; errors reach the user as exceptions."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import sys
import tempfile
from collections.abc import Iterator

from edgefl.errors import EdgeflError

__all__ = ["quiet_tensorflow", "without_remarks"]

_VERBOSITY = "TF_CPP_MIN_LOG_LEVEL"


@contextlib.contextmanager
def quiet_tensorflow() -> Iterator[None]:
    """Imports TensorFlow for a command, on the CPU, and holds back what its native code writes to standard error.

    TensorFlow writes some messages before it reads any setting, and repeats as pages of text what its exceptions say.
    What was held back is shown if something fails that edgefl has no words for. Python's own ``sys.stderr`` works on.
    Nothing is held back where the user has set TF_CPP_MIN_LOG_LEVEL.
    """
    # Devices compute in float32 on CPUs; a GPU would be the wrong thing to compare with, and slower to start.
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    if _VERBOSITY in os.environ:
        _import()
        yield
        return
    os.environ[_VERBOSITY] = "2"
    for name in ("absl", "tensorflow"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with _native_stderr_held():
        _import()
        yield


@contextlib.contextmanager
def without_remarks() -> Iterator[None]:
    """Holds back what TensorFlow remarks on its own files, which in a notebook stands on the page; not its warnings."""
    logger = logging.getLogger("tensorflow")
    before = logger.level
    logger.setLevel(max(logging.WARNING, before))
    try:
        yield
    finally:
        logger.setLevel(before)


def _import() -> None:
    tensorflow = importlib.import_module("tensorflow")
    importlib.import_module("keras")
    tensorflow.config.list_physical_devices()  # looks for GPUs now, not in the middle of the work


@contextlib.contextmanager
def _native_stderr_held() -> Iterator[None]:
    before = sys.stderr
    with tempfile.TemporaryFile() as held:
        real = os.dup(2)
        os.dup2(held.fileno(), 2)
        sys.stderr = os.fdopen(os.dup(real), "w", buffering=1)
        show = True
        try:
            yield
            show = False
        except EdgeflError:
            show = False
            raise
        finally:
            sys.stderr.close()
            sys.stderr = before
            os.dup2(real, 2)
            os.close(real)
            if show:
                held.seek(0)
                os.write(2, held.read())
