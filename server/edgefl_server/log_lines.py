"""The server's log: what comes from outside can neither make a line look like another one, nor fill the disk."""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from collections.abc import Callable, Mapping
from enum import Enum
from types import TracebackType
from typing import Any

from edgefl_server.dates import iso_date

__all__ = ["JsonFormatter", "LineFormatter", "LogFormat", "Repeats", "printable", "start"]

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


_NAMED = re.compile(r"(\w+)?\s?%[sd]")
_IDS = {"run": "run", "round": "fold", "version": "version", "device": "device", "task": "task"}
"""Words before a value in a message, and how it is called in JSON; what people call a round is a fold."""


class LogFormat(str, Enum):
    """The forms of the log."""

    text = "text"
    json = "json"


class JsonFormatter(logging.Formatter):
    """One object a line: ``time``, ``level``, ``logger``, ``message``; the ids of what it is about; a ``traceback``.

    Ids are the values that a message names (``run %s: round %d done``), or what its caller gave as ``extra``.
    """

    def format(self, record: logging.LogRecord) -> str:
        """See logging."""
        found = {
            "time": iso_date(record.created, "milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage().rstrip(),
            **_ids(record),
        }
        if record.exc_info:
            found["traceback"] = self.formatException(record.exc_info)
        return json.dumps(found)  # in ASCII: no character of a value can end the line


def _ids(record: logging.LogRecord) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if isinstance(record.args, tuple):
        for word, value in zip(_NAMED.findall(str(record.msg)), record.args, strict=False):
            if word in _IDS:
                found[_IDS[word]] = value if isinstance(value, int) else str(value)
    given: Mapping[str, Any] = vars(record)
    return {**found, **{name: given[name] for name in _IDS.values() if given.get(name) is not None}}


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


def start(format: LogFormat = LogFormat.text) -> None:
    """Writes what the server says, and warnings of what it is made of, to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if format is LogFormat.json else LineFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("edgefl_server").setLevel(logging.INFO)
