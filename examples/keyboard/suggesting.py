"""The three words that a keyboard offers above its keys, and how often one of them is the one that is meant."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from examples.keyboard.windows import CHARACTERS, LENGTH, decoded, encoded

__all__ = ["Moment", "Predictor", "moments", "suggestions"]

THREE = 3
LONGEST = 12
"""Characters of a word, after which it is cut off."""
_IN_WORDS = np.array([character.isalpha() or character in "'-" for character in CHARACTERS])


class Predictor(Protocol):
    """What says what comes next: an `edgefl.TrainableModel`."""

    def predict(self, x: NDArray[np.int32]) -> NDArray[np.float32]:
        """Scores of each character behind each of `LENGTH` others, ``[rows, LENGTH, characters]``."""
        ...


@dataclass(frozen=True)
class Moment:
    """Somebody is typing a word.

    Attributes:
        before: everything so far, with the word's first letter; at least `LENGTH` characters.
        word: the one that is meant.
    """

    before: str
    word: str


def moments(text: str, count: int) -> list[Moment]:
    """Words of three letters or more, spread evenly over a text, each when its first letter has been typed."""
    text = decoded(encoded(text))
    found = [each for each in re.finditer(r"(?<![A-Za-z'-])[A-Za-z]{3,}(?![A-Za-z'-])", text) if each.start() >= LENGTH]
    places = np.linspace(0, len(found) - 1, min(count, len(found))).astype(int)
    return [Moment(text[: found[place].start() + 1], found[place][0]) for place in places]


def suggestions(model: Predictor, begun: Sequence[Moment]) -> list[tuple[str, ...]]:
    """Offers three words for each moment.

    The three letters that are most likely to follow are each continued by the likeliest character, until that is in no
    word; a word of a single letter is offered too, where its end is among the three.
    """
    contexts = np.stack([encoded(moment.before)[-LENGTH:] for moment in begun])
    best = np.argsort(-_next(model, contexts), axis=1, kind="stable")[:, :THREE]
    rows = np.repeat(contexts, THREE, axis=0)
    words = np.repeat([moment.before[-1] for moment in begun], THREE).astype(f"<U{LONGEST + 1}")
    nexts = best.reshape(-1)
    going = _IN_WORDS[nexts]
    for _ in range(LONGEST):
        words = np.where(going, np.char.add(words, np.array(list(CHARACTERS))[nexts]), words)
        rows = np.where(going[:, None], np.concatenate([rows[:, 1:], nexts[:, None]], axis=1), rows)
        if not going.any():
            break
        nexts[going] = _next(model, rows[going]).argmax(axis=1)
        going = going & _IN_WORDS[nexts]
    return [tuple(map(str, words[start : start + THREE])) for start in range(0, len(words), THREE)]


def _next(model: Predictor, contexts: NDArray[np.int32]) -> NDArray[np.float32]:
    return model.predict(contexts.astype(np.int32))[:, -1, :]
