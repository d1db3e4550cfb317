"""What was counted, as rows of a Markdown table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["ratio_rows", "render"]


def ratio_rows(rows: Sequence[Mapping[str, Any]], base: str) -> list[dict[str, Any]]:
    """Adds to every row the ratio of its instructions to those of the row that is called ``base``, in its group.

    Args:
        rows: with ``group``, ``where`` (board and runtime), ``name`` and ``instructions``.
        base: the name of what is compared with; rows without one in their group get no ratio.
    """
    known = {(row["group"], row["where"]): row["instructions"] for row in rows if row["name"] == base}
    found = []
    for row in rows:
        to = known.get((row["group"], row["where"]))
        found.append({**row, "ratio": row["instructions"] / to if to else None})
    return found


def render(rows: Sequence[Mapping[str, Any]]) -> str:
    """One line for each name in each group, two columns for each board and runtime: millions, and the ratio."""
    places = list(dict.fromkeys(row["where"] for row in rows))
    lines: dict[tuple[str, str], dict[str, str]] = {}
    for row in rows:
        ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f}"
        memory = f" ({row['memory'] / 1e6:.3g})" if row["memory"] else ""
        cell = f"{row['instructions'] / 1e6:.3g}{memory} | {ratio}"
        lines.setdefault((row["group"], row["name"]), {})[row["where"]] = cell
    head = " | ".join(f"{place} | ratio" for place in places)
    text = [f"| | form | {head} |", "|---|---|" + "---|---|" * len(places)]
    last = None
    for (group, name), cells in lines.items():
        first, last = ("" if group == last else group), group
        text.append(f"| {first} | {name} | " + " | ".join(cells.get(place, "– | ") for place in places) + " |")
    return "\n".join(text)
