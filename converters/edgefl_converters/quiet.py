"""Keeps TensorFlow's chatter off a command's standard error; errors reach the user as exceptions."""

from __future__ import annotations

import importlib
import logging
import os
import tempfile

__all__ = ["import_tensorflow_quietly"]


def import_tensorflow_quietly() -> None:
    """Imports TensorFlow for a command: on the CPU, and without its messages about GPUs.

    What the user set in the environment stays as it is. Some messages are written before any setting is read, so
    standard error is held back during the import; it is shown if the import fails.
    """
    # Devices compute in float32 on CPUs; a GPU would be the wrong thing to compare with, and slower to start.
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    for name in ("absl", "tensorflow"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with tempfile.TemporaryFile() as held:
        standard_error = os.dup(2)
        os.dup2(held.fileno(), 2)
        failed = True
        try:
            tensorflow = importlib.import_module("tensorflow")
            importlib.import_module("keras")
            tensorflow.config.list_physical_devices()  # looks for GPUs now, not in the middle of the work
            failed = False
        finally:
            os.dup2(standard_error, 2)
            os.close(standard_error)
            if failed:
                held.seek(0)
                os.write(2, held.read())
