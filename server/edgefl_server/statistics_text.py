"""Statistics of a fleet's data as text for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgefl.errors import RunError

__all__ = ["latest", "table"]

_MOST_LINES = 20
"""Features of one array that are shown; a file has all."""
_MOST_VALUES = 20


def latest(status: dict[str, Any]) -> dict[str, Any]:
    """The statistics that a run found last.

    Args:
        status: as the server tells it.

    Raises:
        RunError: there are none.
    """
    found = [each["findings"]["statistics"] for each in status["history"] if each["findings"].get("statistics")]
    if not found:
        kind = status["settings"].get("kind", "train")
        if kind != "statistics":
            raise RunError(
                f"Run {status['run']} asks its devices to {kind}, not for statistics.",
                hint="Create one with `edgefl run create MODEL.tflite --kind statistics`.",
            )
        why = f" ({status['why']})" if status["why"] else ""
        raise RunError(
            f"Run {status['run']} has found no statistics yet: it is {status['state']}{why}.",
            hint="`edgefl run status` says what it waits for."
            if status["state"] in ("active", "paused")
            else "Give it another round: `edgefl run create MODEL.tflite … --rounds +1`.",
        )
    statistics: dict[str, Any] = found[-1]
    return statistics


def table(found: dict[str, Any]) -> str:
    """One line a feature; of whole numbers, how often each is there."""
    lines = [f"{found['rows']:,} examples of {found['devices']:,} devices"]
    for name, array in found["arrays"].items():
        what = "input" if name in found["inputs"] else "target"
        lines.append(f"{what} {name}, rows of shape {tuple(array['shape'])}, {array['count']:,} numbers a feature")
        if "values" in array:  # whose mean says less
            lines.append(f"  counts: {_values(array['values'])}")
            continue
        lines.append("  feature         mean    deviation      minimum       median      maximum")
        median = array.get("quantiles", {}).get("0.5")
        for place, mean in enumerate(array["mean"][:_MOST_LINES]):
            numbers = [mean, array["variance"][place] ** 0.5, array["low"][place]]
            numbers += [None if median is None else median[place], array["high"][place]]
            lines.append(f"  {place:>7} " + " ".join(map(_number, numbers)))
        if len(array["mean"]) > _MOST_LINES:
            lines.append(f"  … {len(array['mean']) - _MOST_LINES:,} more")
    if found.get("file"):
        lines.append(f"wrote {found['file']}: edgefl convert MODEL --normalization {found['file']} takes it")
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return f"{'-':>12}" if value is None else f"{value:>12.6g}"


def _values(pairs: Sequence[Sequence[int]]) -> str:
    shown = ", ".join(f"{value} ×{count:,}" for value, count in pairs[:_MOST_VALUES])
    return shown + (f", … {len(pairs) - _MOST_VALUES:,} more" if len(pairs) > _MOST_VALUES else "")
