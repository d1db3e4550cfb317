"""Keeps TensorFlow's chatter off a command's standard error; errors reach the user as exceptions."""

from __future__ import annotations

import logging
import os

__all__ = ["quieten"]


def quieten() -> None:
    """To be called before TensorFlow is imported; what the user set in the environment stays."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    for name in ("absl", "tensorflow"):
        logging.getLogger(name).setLevel(logging.ERROR)
