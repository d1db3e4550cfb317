"""Keeps TensorFlow's chatter off a command's standard error; errors reach the user as exceptions."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
from collections.abc import Iterator

from edgefl.native_stderr import VERBOSITY, native_stderr_held

__all__ = ["quiet_functions", "quiet_tensorflow", "without_remarks"]


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
    if VERBOSITY in os.environ:
        _import()
        yield
        return
    os.environ[VERBOSITY] = "2"
    for name in ("absl", "tensorflow"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with native_stderr_held():
        _import()
        yield


@contextlib.contextmanager
def quiet_functions() -> Iterator[None]:
    """Holds the same back while a function of the converter is at work in somebody's own program; see there.

    So it does with what TensorFlow logs in Python: how often edgefl traces, what a copy in float64 makes of a type that
    a layer names.
    """
    if VERBOSITY in os.environ:
        yield
        return
    with native_stderr_held(), _logged_from(logging.CRITICAL):
        yield


@contextlib.contextmanager
def without_remarks() -> Iterator[None]:
    """Holds back what TensorFlow remarks on its own files, which in a notebook stands on the page; not its warnings."""
    with _logged_from(logging.WARNING):
        yield


@contextlib.contextmanager
def _logged_from(level: int) -> Iterator[None]:
    logger = logging.getLogger("tensorflow")
    before = logger.level
    logger.setLevel(max(level, before))
    try:
        yield
    finally:
        logger.setLevel(before)


def _import() -> None:
    tensorflow = importlib.import_module("tensorflow")
    importlib.import_module("keras")
    tensorflow.config.list_physical_devices()  # looks for GPUs now, not in the middle of the work
