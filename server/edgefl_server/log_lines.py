"""The server's log: what comes from outside cannot make a line of it look like another one."""

from __future__ import annotations

import logging
import sys
from types import TracebackType

__all__ = ["LineFormatter", "printable", "start"]


def printable(text: str) -> str:
    """The text in one line: control characters, line ends of any script and what reverses its direction escaped."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


class LineFormatter(logging.Formatter):
    """One line a record, whatever its arguments hold; the lines of a traceback are indented."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Here, and not where a call is made, so that no call can forget it."""
        return printable(super().formatMessage(record))

    def formatException(  # noqa: N802 - logging's name
        self,
        ei: tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None],
    ) -> str:
        """A traceback ends with the exception's text, which may come from outside too."""
        return "\n".join(f"    {printable(line)}" for line in super().formatException(ei).splitlines())


def start() -> None:
    """Writes what the server says, and warnings of what it is made of, to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("edgefl_server").setLevel(logging.INFO)
