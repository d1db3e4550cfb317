"""The server's log: what comes from outside can neither make a line look like another one, nor fill the disk."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from types import TracebackType

__all__ = ["LineFormatter", "Repeats", "printable", "start"]

_COUNTED_SECONDS = 60.0
_MOST_NAMED = 20
"""Different things that are written in so long, each at most twice: some megabytes in a day at the worst."""


def printable(text: str) -> str:
    """The text in one line: control characters, line ends of any script and what reverses its direction escaped."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


class LineFormatter(logging.Formatter):
    """One line a record, whatever its arguments hold; the lines of a traceback are indented."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Here, and not where a call is made, so that no call can forget it."""
        return printable(super().formatMessage(record).rstrip())

    def formatException(  # noqa: N802 - logging's name
        self,
        ei: tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None],
    ) -> str:
        """A traceback ends with the exception's text, which may come from outside too."""
        return "\n".join(f"    {printable(line)}" for line in super().formatException(ei).splitlines())


class Repeats:
    """Bounds the lines that somebody outside can cause again and again: each is written once, then counted.

    Args:
        log: where the counts go.
        clock: in seconds; never set.
    """

    def __init__(self, log: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._log, self._clock = log, clock
        self._began = clock()
        self._more: dict[str, int] = {}
        self._others = 0

    def first(self, what: str) -> bool:
        """Whether to write now that something happened. To be asked by one thread only.

        Args:
            what: says what happened, and to whom; the same words are the same thing.
        """
        self.settle()
        if what in self._more:
            self._more[what] += 1
            return False
        if len(self._more) >= _MOST_NAMED:
            self._others += 1
            return False
        self._more[what] = 0
        return True

    def settle(self) -> None:
        """Writes what was counted once it is time to; for when nothing more happens."""
        if self._clock() - self._began < _COUNTED_SECONDS:
            return
        more, others = self._more, self._others
        self._began, self._more, self._others = self._clock(), {}, 0
        for what, count in more.items():
            if count:
                self._log.warning("… and %d more in the last minute: %s", count, what)
        if others:
            self._log.warning("… and %d more in the last minute, of other devices or for other reasons", others)


def start() -> None:
    """Writes what the server says, and warnings of what it is made of, to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("edgefl_server").setLevel(logging.INFO)
