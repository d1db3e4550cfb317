"""Prints the result of a verb: for people, or as one JSON document (``--format json``)."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable
from enum import Enum
from typing import Annotated, Any, TextIO

import typer

from edgefl.errors import storage_error

__all__ = ["Format", "FormatOption", "emit", "end_output", "progress"]


class Format(str, Enum):
    """The two ways to print a result."""

    text = "text"
    json = "json"


FormatOption = Annotated[Format, typer.Option("--format", help="Print the result as text, or as JSON.")]


def emit(result: Any, chosen: Format, text: Callable[[], str], *, indent: int | None = 2) -> None:
    """Prints a verb's result to standard output; a reader that is gone has seen what it wanted.

    Args:
        result: what JSON can hold; the whole result.
        chosen: what the user asked for.
        text: makes the text for people, only when it is wanted.
        indent: of JSON; None: one line, for who reads line by line from a verb that goes on.

    Raises:
        StorageError: standard output cannot be written.
    """
    try:
        shown = json.dumps(result, indent=indent) if chosen is Format.json else _shown(text(), sys.stdout)
        print(shown, flush=True)  # noqa: T201 - the one place
    except OSError as error:
        sys.stdout = None  # what is left in its buffer would be tried again at the end of the process
        if isinstance(error, BrokenPipeError):
            return
        raise storage_error(error, "write", "the result to standard output") from error


def progress(message: str) -> None:
    """Tells people how it goes, on standard error so that results stay parseable.

    A log that is full, closed or read by nobody any more ends no work.
    """
    if sys.stderr is not None:  # where it was closed at the start, and print would take standard output
        with contextlib.suppress(OSError, ValueError):
            print(_shown(message, sys.stderr), file=sys.stderr, flush=True)  # noqa: T201 - the one place


def _shown(text: str, stream: TextIO | None) -> str:
    """A text as a terminal may get it: names in a model file, or what a server answers, are somebody else's words.

    Nothing in it controls the terminal, and what the stream's encoding lacks becomes a question mark.
    """
    plain = "".join(letter if letter.isprintable() or letter in "\n\t" else "?" for letter in text)
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return plain.encode(encoding, "replace").decode(encoding)


def end_output() -> None:
    """Lets go of a standard error that cannot be written: Python would change the exit code for it."""
    try:
        if sys.stderr is not None:
            sys.stderr.flush()
    except (OSError, ValueError):
        sys.stderr = None
