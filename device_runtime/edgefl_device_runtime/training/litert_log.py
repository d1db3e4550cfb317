"""Keeps the runtimes' own log off the terminal: they have no setting for that (google-ai-edge/LiteRT, issue 7420).

They write to the descriptor of standard error, from C++. An interpreter greets with one line for the first model of a
process. CompiledModel writes three dozen, of accelerators and plugins that it looks for, and a few as the process ends.
Whatever else is written there meanwhile is passed on.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import re
import tempfile
import threading
from collections.abc import Iterator

__all__ = ["quiet", "quiet_at_exit", "without_greeting"]

_STANDARD_ERROR = 2
_GREETING = re.compile(rb"INFO: Created TensorFlow Lite XNNPACK delegate for CPU\.")
_OWN_LINE = re.compile(rb"(INFO|WARNING|ERROR): \[[\w/.-]+:\d+\]\s|\xe2\x94\x94 |" + _GREETING.pattern)
"""A line of the log, which begins with its source, or goes on with a corner."""
_one_at_a_time = threading.RLock()


_greeted: set[str] = set()


@contextlib.contextmanager
def without_greeting(runtime: str) -> Iterator[None]:
    """Takes out the line that an interpreter greets with; nothing is held back once it has loaded a model."""
    if runtime in _greeted:
        yield
        return
    with quiet(_GREETING):
        yield
    _greeted.add(runtime)


@contextlib.contextmanager
def quiet(lines: re.Pattern[bytes] = _OWN_LINE) -> Iterator[None]:
    """Takes LiteRT's lines out of what is written to standard error meanwhile."""
    with _one_at_a_time, contextlib.ExitStack() as stack:
        try:
            real = os.dup(_STANDARD_ERROR)
        except OSError:  # it is closed: nothing can be written to it
            yield
            return
        stack.callback(os.close, real)
        written = stack.enter_context(tempfile.TemporaryFile())
        os.dup2(written.fileno(), _STANDARD_ERROR)
        try:
            yield
        finally:
            os.dup2(real, _STANDARD_ERROR)
            written.seek(0)
            others = b"".join(line for line in written if not lines.match(line))
            if others:
                os.write(_STANDARD_ERROR, others)


@functools.cache
def quiet_at_exit() -> None:
    """Closes standard error when the process ends, before LiteRT tells what it lets go of; to be called once it runs.

    Functions for the end run in the opposite order, so this one follows all of Python's and what was loaded later, and
    comes before what LiteRT did as it first ran.
    """
    with contextlib.suppress(OSError, AttributeError):  # no such function in this C library: some lines at the end
        library = ctypes.CDLL(None)
        library.__cxa_atexit(library.close, ctypes.c_void_p(_STANDARD_ERROR), None)
