"""Writes the part of docs/coverage.md about Keras's own tests."""

from __future__ import annotations

import re
from collections.abc import Sequence

from keras_coverage.own_tests.running import OwnTest
from keras_coverage.pairwise.share import reasons
from keras_coverage.sections import section_of, with_section

__all__ = ["with_own_tests", "written_own_tests"]

_HEADING = "Keras's own tests"


def with_own_tests(document: str, found: Sequence[OwnTest]) -> str:
    """A document with the part about Keras's own tests written anew.

    Args:
        document: all of it.
        found: what became of each case.
    """
    diverging = sum(case.diverges for case in found)
    found = [case for case in found if not case.diverges]
    wrong = [case for case in found if case.complaint]
    share = f"{100 * (len(found) - len(wrong)) / len(found):.1f} %" if found else "none"
    lines = [
        "Keras's tests call each layer with settings and inputs of their own (`run_layer_test`). Such a call is put",
        "between a layer that learns and one that sees all that it returns. It counts if Keras's tests train it, on",
        "plain tensors, if there is a gradient (for its own weights, or what stands before it), and if Keras itself",
        "trains it: takes a step, in a graph as `fit` does, with numbers as losses and gradients, before it and after.",
        f"Of these, {len(found) - len(wrong)} of {len(found)} convert and train as in Keras ({share}).",
        f"Not counted are {diverging} more, whose loss is no number in Keras itself after a few steps, however small.",
        "`python -m keras_coverage.own_tests CHECKOUT`, in `tests/`, reads them from a checkout of Keras at the tag of",
        "the installed version, and goes on where it stopped.",
    ]
    if wrong:
        lines += ["", "| | why not |", "|---|---|"]
        lines += [f"| `{case.key}` | {reasons({case.key: case.complaint})} |" for case in wrong]
    return with_section(document, _HEADING, lines)


def written_own_tests(document: str) -> tuple[int, int]:
    """What a document says: how many calls convert, and how many there are; both 0 where it says nothing."""
    found = re.search(r"(\d+) of (\d+) convert", section_of(document, _HEADING))
    return (int(found[1]), int(found[2])) if found else (0, 0)
