"""Columns and curves of a run's rows: what tables and pictures of it show. Values in, values out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgefl.errors import InvalidSettingError

__all__ = [
    "AXES",
    "DEVICES",
    "MEASURED_ON",
    "Axis",
    "Curve",
    "axis_of",
    "curve",
    "flat",
    "flat_rows",
    "measured",
    "metrics_in",
    "metrics_of",
    "numbers",
    "scale",
    "wide",
    "written",
]

Row = Mapping[str, Any]
_TOTAL = "bytes_so_far"
_LARGE = 1e4
_WIDE = 100.0
"""Times the median that a value is which makes a scale logarithmic."""


@dataclass(frozen=True)
class Axis:
    """A quantity that grows from round to round, along which a picture goes.

    Attributes:
        column: of the flat rows.
        label: below the picture.
        phrase: in a title: accuracy …
    """

    column: str
    label: str
    phrase: str


AXES = {
    "round": Axis("round", "round", "by round"),
    "time": Axis("clock", "simulated time", "by simulated time"),
    "bytes": Axis(_TOTAL, "bytes up and down", "by bytes up and down"),
}
"""The quantities along which a picture can go, by the names that people give."""

DEVICES = "federated"
MEASURED_ON = {"central": "", DEVICES: " over devices", "training": " in training"}
"""Kinds of metrics, the most telling first, and what is said of those that are not of rows that no device holds."""

_UNITS = {
    "clock": ((1.0, "s"), (60.0, "min"), (3600.0, "h"), (86400.0, "days")),
    _TOTAL: ((1.0, "B"), (1e3, "kB"), (1e6, "MB"), (1e9, "GB"), (1e12, "TB")),
}


@dataclass(frozen=True)
class Curve:
    """Points of one column of a run, in the order of its rounds.

    Attributes:
        x: along an axis.
        y: the column's values, all finite.
    """

    x: tuple[float, ...]
    y: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.x)


def flat(row: Row) -> dict[str, Any]:
    """A row without rows in it: ``{"central": {"loss": 1.0}}`` becomes ``{"central.loss": 1.0}``.

    A list of numbers becomes its mean and its maximum, any other list its texts in one.

    Args:
        row: plain values.
    """
    found: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, Mapping):
            found |= {f"{name}.{rest}": each for rest, each in flat(value).items()}
        elif isinstance(value, (list, tuple)):
            if value and all(_is_number(each) for each in value):
                found |= {f"{name}.mean": sum(value) / len(value), f"{name}.max": max(value)}
            else:
                found[name] = "; ".join(map(str, value))
        else:
            found[name] = value
    return found


def flat_rows(initial: Row, rounds: Sequence[Row]) -> list[dict[str, Any]]:
    """All rows of a run with the same columns.

    Args:
        initial: the evaluation before the first round, which becomes round 0; empty: there is none.
        rounds: a row each.

    Returns:
        A row for each round with every column that any of them has, None where a round has no value. ``bytes_so_far``
        adds up what went up and down until then, where rounds say that.
    """
    # Where real devices worked there is no simulated time, not even its beginning.
    clock = 0.0 if any(_is_number(row.get("clock")) for row in rounds) else None
    first = [{"round": 0, "version": 0, "state": "initial", "clock": clock, **initial}] if initial else []
    rows = [flat(row) for row in [*first, *rounds]]
    if any(_is_number(row.get(name)) for row in rows for name in ("bytes_up", "bytes_down")):
        total = 0.0
        for row in rows:
            total += sum(float(row[name]) for name in ("bytes_up", "bytes_down") if _is_number(row.get(name)))
            row[_TOTAL] = total
    columns = dict.fromkeys(name for row in rows for name in row)
    return [{name: row.get(name) for name in columns} for row in rows]


def curve(rows: Iterable[Row], column: str, axis: Axis) -> Curve:
    """Takes one column of flat rows; where it, or the axis, has no finite number there is no point."""
    found = [(row[axis.column], row[column]) for row in rows if _has(row, axis.column) and _has(row, column)]
    return Curve(tuple(float(x) for x, _ in found), tuple(float(y) for _, y in found))


def numbers(rows: Iterable[Row], column: str) -> list[float]:
    """The finite numbers of a column."""
    return [float(row[column]) for row in rows if _has(row, column)]


def written(value: float) -> str:
    """A metric with four decimals; a large one, as of a loss that grows and grows, with four digits: ``2.162e+08``."""
    return f"{value:.4f}" if abs(value) < _LARGE else f"{value:.3e}"


def wide(values: Sequence[float]) -> bool:
    """Whether a few values, as of a run that diverges, would hide all others on a scale that is not logarithmic."""
    found = sorted(value for value in values if math.isfinite(value))
    return bool(found) and found[0] > 0 and found[-1] > _WIDE * found[len(found) // 2]


def metrics_of(rows: Iterable[Row], kind: str) -> list[str]:
    """The metrics of one kind that flat rows have, in their order.

    Args:
        rows: flat.
        kind: ``central``, ``federated`` or ``training``.
    """
    names = dict.fromkeys(name for row in rows for name in row if name.startswith(f"{kind}."))
    short = [name.removeprefix(f"{kind}.") for name in names]
    if kind == DEVICES:
        short = [name.removesuffix(".mean") for name in short if name.endswith(".mean")]
    return short


def measured(rows: Sequence[Row]) -> tuple[str, dict[str, float]]:
    """The figures that say best how good the newest weights are, and what they are of.

    Args:
        rows: of rounds, not flat, in their order.

    Returns:
        A name of `MEASURED_ON` and metrics of the latest row that has some of that kind: those on the held-out rows,
        else their means over devices, else those of the training.
    """
    for kind in MEASURED_ON:
        for row in reversed(rows):
            if found := metrics_in(row, kind):
                return kind, found
    return "", {}


def metrics_in(row: Row, kind: str) -> dict[str, float]:
    """The metrics of one kind in a row that is not flat; those over devices by their means.

    Args:
        row: of a round.
        kind: a name of `MEASURED_ON`.
    """
    found = row.get(kind) or {}
    return {name: each["mean"] for name, each in found.items() if name != "devices"} if kind == DEVICES else dict(found)


def axis_of(name: str) -> Axis:
    """Finds an axis by its name.

    Raises:
        InvalidSettingError: there is none of this name.
    """
    if name not in AXES:
        raise InvalidSettingError(f"Expected one of {', '.join(AXES)} as what a picture goes along, got {name!r:.80}.")
    return AXES[name]


def scale(column: str, largest: float) -> tuple[float, str]:
    """The unit in which a quantity is read most easily: how many of its own units that is, and its name.

    Args:
        column: of the flat rows.
        largest: value that is to be shown.
    """
    units = _UNITS.get(column, ((1.0, ""),))
    fitting = [unit for unit in units if largest >= 2 * unit[0]]
    return fitting[-1] if fitting else units[0]


def _has(row: Row, column: str) -> bool:
    return _is_number(row.get(column)) and math.isfinite(row[column])


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
