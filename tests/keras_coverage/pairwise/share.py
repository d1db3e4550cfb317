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
    """A document with the part about combinations written anew; classes that were not tried keep their rows.

    Args:
        document: all of it.
        found: what became of each class that was tried.
    """
    rows = {name: row for name, row in _written_rows(document).items() if name in SUBJECTS}
    rows |= {
        each.name: f"| `{each.name}` | {each.converted} | {len(each.complaints)} | {reasons(each.complaints)} |"
        for each in found
    }
    shares = [_share(row) for row in rows.values()]
    converted, cases = sum(each for each, _ in shares), sum(each for _, each in shares)
    share = f"{100 * converted / cases:.1f} %" if cases else "none"
    lines = [
        "Arguments that work one by one may not work together. For each class the cases hold every *pair* of values",
        "of its arguments that Keras accepts and trains with: activations, biases, paddings, strides, formats, ranks,",
        "masks, initial values, regularizers, constraints, and what the class inherits. Each converts and passes all",
        f"that `edgefl convert` verifies, on each runtime: {converted} of {cases} do ({share}), of {len(rows)}",
        f"classes out of {len(SUBJECTS)}. The values lie in `tests/keras_coverage/pairwise`; `make coverage` goes on",
        "where it stopped.",
        "",
        "| | convert | cases | what does not |",
        "|---|---|---|---|",
        *(rows[name] for name in sorted(rows, key=str.lower)),
    ]
    return with_section(document, _HEADING, lines)


def _written_rows(document: str) -> dict[str, str]:
    return {
        row[1]: row[0] for row in re.finditer(r"^\| `(\w+\.\w+)` .*$", section_of(document, _HEADING), re.MULTILINE)
    }


def _share(row: str) -> tuple[int, int]:
    _, _, converted, cases, _ = row.split("|", 4)
    return int(converted), int(cases)


def written_shares(document: str) -> dict[str, tuple[int, int]]:
    """What a document says: ``layers.Dense`` to how many cases convert, and how many there are."""
    return {name: _share(row) for name, row in _written_rows(document).items()}


def reasons(complaints: Mapping[str, str]) -> str:
    """What complaints say, each once, in few words."""
    return "; ".join(dict.fromkeys(_reason(each) for each in complaints.values() if each))


def _reason(complaint: str) -> str:
    sentence = complaint.partition(": ")[2] or complaint
    return sentence.split(". ")[0].splitlines()[0][:160].replace("|", "/").rstrip(". ")
