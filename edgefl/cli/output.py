"""How verbs print a result: for people, or as one JSON document (``--format json``)."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from enum import Enum
from typing import Annotated, Any

import typer

__all__ = ["Format", "FormatOption", "emit", "progress"]


class Format(str, Enum):
    """The two ways to print a result."""

    text = "text"
    json = "json"


FormatOption = Annotated[Format, typer.Option("--format", help="Print the result as text, or as JSON.")]


def emit(result: Any, chosen: Format, text: Callable[[], str]) -> None:
    """Prints a verb's result to standard output.

    Args:
        result: what JSON can hold; the whole result.
        chosen: what the user asked for.
        text: makes the text for people, only when it is wanted.
    """
    print(json.dumps(result, indent=2) if chosen is Format.json else text())  # noqa: T201 - the one place that prints


def progress(message: str) -> None:
    """Tells people how it goes, on standard error so that results stay parseable."""
    print(message, file=sys.stderr, flush=True)  # noqa: T201 - the one place that prints progress
