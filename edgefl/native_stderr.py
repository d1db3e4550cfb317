"""Keeps off the terminal what native code writes to standard error; errors reach the user as exceptions."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from typing import TextIO

from edgefl.errors import EdgeflError

__all__ = ["VERBOSITY", "native_stderr_held"]

VERBOSITY = "TF_CPP_MIN_LOG_LEVEL"
"""TensorFlow's own setting: whoever has set it wants to see what it lets through."""


@contextlib.contextmanager
def native_stderr_held() -> Iterator[None]:
    """Holds back what TensorFlow and the interpreters write past Python; ``sys.stderr`` works on.

    What was held back is shown if something fails that edgefl has no words for.
    """
    with contextlib.ExitStack() as stack:
        try:
            held = stack.enter_context(tempfile.TemporaryFile())
            real = os.dup(2)
        except OSError:  # no place for it, or standard error is closed: then it is shown, or nobody listens
            yield
            return
        stack.callback(os.close, real)
        stack.enter_context(_python_writes_to(real))
        os.dup2(held.fileno(), 2)
        show = True
        try:
            yield
            show = False
        except (EdgeflError, KeyboardInterrupt):
            show = False
            raise
        finally:
            os.dup2(real, 2)
            if show:
                held.seek(0)
                os.write(2, held.read())


@contextlib.contextmanager
def _python_writes_to(descriptor: int) -> Iterator[None]:
    """Lets ``sys.stderr`` go past what is redirected; notebooks and tests have one that does so already."""
    before = sys.stderr
    if not _is_native(before):
        yield
        return
    sys.stderr = os.fdopen(os.dup(descriptor), "w", buffering=1)
    try:
        yield
    finally:
        sys.stderr.close()
        sys.stderr = before


def _is_native(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.fileno() == 2
    except (OSError, ValueError):
        return False
