"""Rows of figures, their ratios, and how they are written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from local_steps.bars import FASTEST
from local_steps.cases import CASES
from local_steps.contending import OWN

__all__ = ["COLUMNS", "lines", "with_ratios"]

COLUMNS = (FASTEST, "ONNX Runtime", "PyTorch", "tf.function")
"""To which the steps of all are ratios."""


def with_ratios(group: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Adds to the rows of one model, batch and number of threads how many times the peers' time each takes.

    A ratio to a peer that was not measured is None.
    """
    steps: dict[str, list[float]] = {}
    for row in group:
        if row["family"] != OWN and not row["why_not"]:
            for column in (FASTEST, row["family"]):
                steps.setdefault(column, []).append(row["step_ms"])
    found = []
    for row in group:
        ratios = {
            column: round(row["step_ms"] / min(steps[column]), 3) if column in steps and not row["why_not"] else None
            for column in COLUMNS
        }
        found.append({**row, "ratios": ratios})
    return found


def lines(group: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """One model, batch and number of threads as text."""
    first = group[0]
    threads = "1 thread" if first["threads"] == 1 else f"{first['threads']} threads"
    heads = (f"{'':26}{'step':>11}", *(f"{'/ ' + column:>16}" for column in COLUMNS), "   peak RSS    PSS   cold start")
    yield f"\n{CASES[first['model']].title}, batch {first['batch']}, {threads}"
    yield "".join(heads)
    for row in group:
        if row["why_not"]:
            yield f"{row['contender']:26}{'–':>8}   {row['why_not']}"
            continue
        ratios = "".join(f"{'–' if ratio is None else f'{ratio:.2f}':>16}" for ratio in row["ratios"].values())
        memory = f"{row['peak_rss_mb']:8.0f} MB {row['pss_mb']:3.0f} MB"
        yield f"{row['contender']:26}{row['step_ms']:8.3f} ms{ratios}{memory}{row['cold_start_s']:10.2f} s"
