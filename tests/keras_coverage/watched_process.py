"""A process of its own that answers questions: what ends it, or hangs in it, costs one answer and nothing else."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

__all__ = ["NoAnswerError", "WatchedProcess"]

_ANSWERS = 100
"""TensorFlow keeps the graphs of a process: after so many answers a new one goes on."""


class NoAnswerError(Exception):
    """The process ended while it looked for an answer, or took too long."""


class WatchedProcess:
    """Asks one question after the other; a process that gave no answer is followed by a new one.

    Args:
        prepare: is called once in each process, with ``given``; returns the function that answers. Both are named in
            the other process, so ``prepare`` lies at the top of a module.
        given: what it is called with.
        seconds: of a clock that an answer may take; the first one of a process may take as long again, for the imports.
    """

    def __init__(self, prepare: Callable[..., Callable[[Any], Any]], given: tuple[Any, ...], seconds: float) -> None:
        self._prepare, self._given, self._seconds = prepare, given, seconds
        self._process: Any = None
        self._connection: Any = None
        self._answers = 0

    def __enter__(self) -> WatchedProcess:
        return self

    def __exit__(self, *error: object) -> None:
        self._end()

    def ask(self, question: Any) -> Any:
        """Returns the answer.

        Raises:
            NoAnswerError: there is none, and why.
        """
        if self._process is None or self._answers == _ANSWERS:
            self._begin()
        seconds = self._seconds * (1 if self._answers else 2)
        self._answers += 1
        self._connection.send(question)
        try:
            if self._connection.poll(seconds):
                return self._connection.recv()
            reason = f"takes more than {seconds:.0f} s"
        except (EOFError, OSError):
            self._process.join()
            reason = f"ends the process ({_ending(self._process.exitcode)})"
        self._end()
        raise NoAnswerError(reason)

    def _begin(self) -> None:
        self._end()
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_answer, args=(theirs, self._prepare, self._given))
        self._process.start()
        theirs.close()

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._connection.close()
        self._process, self._connection, self._answers = None, None, 0


def _answer(connection: Connection, prepare: Callable[..., Callable[[Any], Any]], given: tuple[Any, ...]) -> None:
    answer = prepare(*given)
    with contextlib.suppress(EOFError, BrokenPipeError):  # nobody asks any more
        while True:
            connection.send(answer(connection.recv()))


def _ending(code: int | None) -> str:
    return signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
