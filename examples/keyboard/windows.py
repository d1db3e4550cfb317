"""Text as numbers: the characters that the keyboard has, and windows of them with what comes next."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["CHARACTERS", "LENGTH", "decoded", "encoded", "windows"]

CHARACTERS = "\n !&'(),-.:;?ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
"""All that can be typed; what a text has besides (digits, brackets) is left out of it."""
LENGTH = 48
"""Characters that the model sees at once."""

Numbers = NDArray[np.int32]
_NUMBERS = {character: number for number, character in enumerate(CHARACTERS)}


def encoded(text: str) -> Numbers:
    """Each character as its number, ``[characters]``."""
    return np.array([_NUMBERS[each] for each in text if each in _NUMBERS], np.int32)


def decoded(numbers: Numbers) -> str:
    """The text of such numbers."""
    return "".join(CHARACTERS[number] for number in numbers)


def windows(text: str, most: int | None = None) -> tuple[Numbers, Numbers]:
    """Cuts a text into windows that do not overlap.

    Args:
        text: of any length; what fills no window at its end is left out.
        most: at most so many windows, from the beginning.

    Returns:
        The windows, ``[windows, LENGTH]``, and for each of their characters the next one, of the same shape.
    """
    numbers = encoded(text)
    count = max(0, len(numbers) - 1) // LENGTH
    size = LENGTH * (count if most is None else min(count, most))
    return numbers[:size].reshape(-1, LENGTH), numbers[1 : size + 1].reshape(-1, LENGTH)
