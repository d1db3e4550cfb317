from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from examples.keyboard.suggesting import Moment, moments, suggestions
from examples.keyboard.windows import CHARACTERS, LENGTH, decoded

BEFORE = "x" * LENGTH + " "


class Speller:
    """Knows some words by their first letters, and a space behind each of them; likelier words stand first."""

    def __init__(self, *words: str) -> None:
        self._words = words

    def predict(self, x: NDArray[np.int32]) -> NDArray[np.float32]:
        scores = np.zeros((len(x), LENGTH, len(CHARACTERS)), np.float32)
        for row, context in enumerate(x):
            begun = decoded(context).rpartition(" ")[2]
            for rank, word in enumerate(self._words):
                if f"{word} ".startswith(begun):
                    following = CHARACTERS.index(f"{word} "[len(begun)])
                    scores[row, -1, following] = max(scores[row, -1, following], len(self._words) - rank)
        return scores


def test_three_words_are_offered_the_likeliest_first() -> None:
    speller = Speller("thou", "teach", "to", "thy", "sea")
    assert suggestions(speller, [Moment(f"{BEFORE}t", "teach")]) == [("thou", "teach", "to")]


def test_several_moments_at_once_are_as_one_after_the_other() -> None:
    speller = Speller("loue", "lie", "lamb", "hast", "hence", "his")
    both = [Moment(f"{BEFORE}l", "lie"), Moment(f"{BEFORE}h", "hence")]
    assert suggestions(speller, both) == [suggestions(speller, [each])[0] for each in both]


def test_a_word_that_never_ends_is_cut_off() -> None:
    offered = suggestions(Speller("a" * 40), [Moment(f"{BEFORE}a", "a")])[0]
    assert offered[0] == "a" * 13


def test_moments_are_words_of_three_letters_with_the_first_one_typed() -> None:
    found = moments("y" * LENGTH + " a cat's eye, to see it-self or not", 10)
    assert [each.word for each in found] == ["eye", "see", "not"]
    assert [each.before[-3:] for each in found] == ["s e", "o s", "r n"]
