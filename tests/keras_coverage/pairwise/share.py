"""Writes, and reads, the part of docs/coverage.md about combinations."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from keras_coverage.pairwise.combining import Combined
from keras_coverage.pairwise.subjects import SUBJECTS
from keras_coverage.sections import section_of, with_section

__all__ = ["reasons", "with_combinations", "written_shares"]

_HEADING = "Combinations"


def with_combinations(document: str, found: Sequence[Combined]) -> str:
    """A document with the part about combinations written anew.

    Args:
        document: all of it.
        found: what became of each class.
    """
    converted, cases = sum(each.converted for each in found), sum(len(each.complaints) for each in found)
    share = f"{100 * converted / cases:.1f} %" if cases else "none"
    lines = [
        "Arguments that work one by one may not work together. For each class the cases hold every *pair* of values",
        "of its arguments that Keras accepts and trains with: activations, biases, paddings, strides, formats, ranks,",
        "masks, initial values, regularizers, constraints, and what the class inherits. Each converts and passes all",
        f"that `edgefl convert` verifies, on each runtime: {converted} of {cases} do ({share}), of {len(found)}",
        f"classes out of {len(SUBJECTS)}. The values lie in `tests/keras_coverage/pairwise`; `make coverage` goes on",
        "where it stopped.",
        "",
        "| | convert | cases | what does not |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| `{each.name}` | {each.converted} | {len(each.complaints)} | {reasons(each.complaints)} |"
        for each in sorted(found, key=lambda each: each.name.lower())
    ]
    return with_section(document, _HEADING, lines)


def written_shares(document: str) -> dict[str, tuple[int, int]]:
    """What a document says: ``layers.Dense`` to how many cases convert, and how many there are."""
    rows = re.findall(r"\| `(\w+\.\w+)` \| (\d+) \| (\d+) \|", section_of(document, _HEADING))
    return {name: (int(converted), int(cases)) for name, converted, cases in rows}


def reasons(complaints: Mapping[str, str]) -> str:
    """What complaints say, each once, in few words."""
    return "; ".join(dict.fromkeys(_reason(each) for each in complaints.values() if each))


def _reason(complaint: str) -> str:
    sentence = complaint.partition(": ")[2] or complaint
    return sentence.split(". ")[0].splitlines()[0][:160].replace("|", "/").rstrip(". ")
