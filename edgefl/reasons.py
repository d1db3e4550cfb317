"""The one line of a Keras or TensorFlow error that says what is wrong."""

from __future__ import annotations

import re

__all__ = ["reason"]

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_FRAMING = re.compile(
    r"^(Exception encountered when calling|in user code|File \"|Call arguments received|Arguments received)"
)


def reason(error: BaseException) -> str:
    """The first line that tells the cause; Keras wraps it into lines that tell where.

    Args:
        error: whatever a call into Keras or TensorFlow raised.
    """
    lines = [line.strip() for line in _COLOUR.sub("", str(error)).splitlines()]
    telling = [line for line in lines if line and not _FRAMING.match(line)]
    return telling[0] if telling else type(error).__name__
