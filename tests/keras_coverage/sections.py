"""Parts of docs/coverage.md that are written by programs of their own, behind its tables."""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["kept_sections", "section_of", "with_section"]

_OWN = ("Combinations", "Keras's own tests")
"""Headings, in their order."""


def section_of(document: str, heading: str) -> str:
    """What stands below a heading; nothing if it is not there."""
    _, _, rest = document.partition(f"\n## {heading}\n")
    return re.split(r"\n## ", rest)[0]


def with_section(document: str, heading: str, lines: Sequence[str]) -> str:
    """A document with other text below one of the headings.

    Args:
        document: all of it.
        heading: one of those that this module knows.
        lines: of the text.
    """
    parts = {each: section_of(document, each).strip() for each in _OWN} | {heading: "\n".join(lines)}
    return document[: _end(document)].rstrip() + "\n" + _written(parts)


def kept_sections(document: str) -> str:
    """All of these parts, to be put behind tables that are written anew."""
    return _written({each: section_of(document, each).strip() for each in _OWN})


def _end(document: str) -> int:
    return min((at for each in _OWN if (at := document.find(f"\n## {each}\n")) >= 0), default=len(document))


def _written(parts: dict[str, str]) -> str:
    return "".join(f"\n## {heading}\n\n{text}\n" for heading, text in parts.items() if text)
