"""Pictures of a report: accuracy and loss, the spread over devices, cost, staleness, and a strategy's diagnostics."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgefl_simulation.curves import AXES, Axis, Curve, curve, metrics_of, numbers, scale, wide
from edgefl_simulation.picture import Band, Line, Picture, one_line
from edgefl_simulation.report.comparing import Compared

__all__ = ["Section", "sections"]

_LABEL = 32
_PHASES = ("download", "compute", "upload", "waiting")
_TIMES = 20.0
"""Times that runs differ by from which on they do not share a scale that is not logarithmic."""
_ROOM = 1.5
"""Times that a logarithmic scale goes beyond its values."""
_STALENESS = {"staleness.mean": "diagnostics.staleness", "staleness.max": "diagnostics.stalest"}
"""Columns of updates' staleness, and the diagnostics that say the same of those folds alone in which one is stale."""
_DIAGNOSTICS = 24
"""Pictures of diagnostics, beyond which they would only be many."""


@dataclass(frozen=True)
class Section:
    """Pictures that belong together.

    Attributes:
        title: above them.
        text: a sentence about how to read them.
        pictures: of what changes.
        constant: sentences about what is the same in all rounds of all runs.
    """

    title: str
    text: str
    pictures: tuple[Picture, ...] = field(default=())
    constant: tuple[str, ...] = field(default=())


def sections(runs: Sequence[Compared]) -> list[Section]:
    """All pictures for which there is something to see.

    Args:
        runs: drawn into the same pictures, but for the spread over devices.
    """
    found = [
        Section(
            "How good the model is",
            "On rows that no device holds, after each round that was evaluated.",
            tuple(_by_axes(runs, "central", "{}")),
        ),
        Section(
            "How good it is for each device",
            "The line is the mean over the devices that were asked, the dotted one their median, the broken one the "
            "mean of the worst tenth. The area holds eight tenths of them, between the quantiles 0.1 and 0.9.",
            tuple(_spreads(runs)),
        ),
        Section(
            "After local training",
            "The mean over devices that keep rows for tests, with the weights as they are, and once more after each "
            "has trained by itself.",
            tuple(_personalised(runs)),
        ),
        Section(
            "While devices train",
            "Metrics of the training itself, on the devices' own rows, as the server of a real fleet sees them.",
            tuple(_by_axes(runs, "training", "{} in training", ("round",))),
        ),
        Section("What it costs", "", tuple(_costs(runs)), tuple(_constant(runs, "outcomes."))),
        Section(
            "Staleness",
            "How many versions of the weights an update is behind when it is folded.",
            tuple(_staleness(runs)),
        ),
        Section(
            "Diagnostics of the strategy",
            "What it says of each fold.",
            tuple(_diagnostics(runs)),
            tuple(_constant(runs, "diagnostics.")),
        ),
    ]
    return [section for section in found if section.pictures or section.constant]


def _by_axes(runs: Sequence[Compared], kind: str, title: str, axes: Iterable[str] = tuple(AXES)) -> Iterable[Picture]:
    """A picture for each metric of a kind and each axis."""
    for metric in _names(runs, lambda each: metrics_of(each.rows, kind)):
        for name in axes:
            text = title.format(metric)
            yield from _lines(runs, f"{kind}.{metric}", f"{text.replace(' ', '-')}-by-{name}", text, metric, AXES[name])


def _lines(runs: Sequence[Compared], column: str, name: str, title: str, up: str, axis: Axis) -> Iterable[Picture]:
    """One column of all runs; nothing where no run has two points, or one of a run of one."""
    curves = [(number, curve(each.rows, column, axis)) for number, each in enumerate(runs)]
    if not any(len(points) for _, points in curves) or not _worth(runs, axis):
        return
    unit, across = _across(axis, [points for _, points in curves])
    far_apart = axis.column == "clock" and _far_apart([points.x for _, points in curves])
    lines = tuple(
        Line(_label(runs[number]), [x / unit for x in points.x], points.y, number)
        for number, points in ((number, _from_above_0(points, points.x, far_apart)) for number, points in curves)
        if points
    )
    logarithmic = wide([y for line in lines for y in line.y])
    title = f"{title} {axis.phrase}"
    yield Picture(
        *(_file(name), title, across, up, lines),
        legend=len(runs) > 1,
        logarithmic=logarithmic,
        across_logarithmic=far_apart,
    )


def _spreads(runs: Sequence[Compared]) -> Iterable[Picture]:
    """A picture for each metric and run, with the same scale for all runs unless that would hide one."""
    axis = AXES["round"]
    for metric in _names(runs, lambda each: metrics_of(each.rows, "federated")):
        column = f"federated.{metric}"
        names = [
            f"{column}.{each}" for each in ("mean", "worst_tenth", "quantiles.0.5", "quantiles.0.1", "quantiles.0.9")
        ]
        own = [[value for name in names for value in numbers(each.rows, name)] for each in runs]
        if not any(own):
            continue
        span = _with_room([value for each in runs for value in numbers(each.rows, axis.column)], 0.02)
        for number, each in enumerate(runs):
            mean, worst, median, low, high = (curve(each.rows, name, axis) for name in names)
            if not mean:
                continue
            values = _to_scale(own, number)
            logarithmic = wide(values)
            limits = (min(values) / _ROOM, max(values) * _ROOM) if logarithmic else _with_room(values, 0.04)
            bands = (Band("eight tenths of devices", low.x, low.y, high.y, number),) if low.x == high.x and low else ()
            found = (("mean", mean, 0), ("median", median, 3), ("worst tenth", worst, 1))
            lines = tuple(Line(word, points.x, points.y, number, dashes) for word, points, dashes in found if points)
            title = f"{metric} over devices" + (f": {_label(each)}" if len(runs) > 1 else "")
            name = f"{metric}-over-devices" + (f"-{number + 1}" if len(runs) > 1 else "")
            yield Picture(_file(name), title, axis.label, metric, lines, bands, limits, span, logarithmic=logarithmic)


def _personalised(runs: Sequence[Compared]) -> Iterable[Picture]:
    kinds = ("before", "after")
    names = _names(runs, lambda each: _with_prefix(each.rows, "personalised.after."))
    for column in [name for name in names if name.endswith(".mean")]:
        metric = column.removeprefix("personalised.after.").removesuffix(".mean")
        columns = {f"{kind} local training": f"personalised.{kind}.{metric}.mean" for kind in kinds}
        yield from _several(runs, columns, f"{metric}-after-local-training", f"{metric} after local training", metric)


def _several(runs: Sequence[Compared], columns: Mapping[str, str], name: str, title: str, up: str) -> Iterable[Picture]:
    """A picture for each run of columns that belong together, by the names that they have in its legend."""
    axis = AXES["round"]
    own = [[value for column in columns.values() for value in numbers(each.rows, column)] for each in runs]
    if not any(map(any, own)):
        return
    span = _with_room([value for each in runs for value in numbers(each.rows, axis.column)], 0.02)
    for number, each in enumerate(runs):
        found = [(label, curve(each.rows, column, axis)) for label, column in columns.items()]
        lines = tuple(Line(label, points.x, points.y, place) for place, (label, points) in enumerate(found) if points)
        if lines:
            whose = f": {_label(each)}" if len(runs) > 1 else ""
            ending = f"-{number + 1}" if len(runs) > 1 else ""
            limits = _with_room(_to_scale(own, number), 0.04)
            yield Picture(_file(name + ending), f"{title}{whose}", axis.label, up, lines, (), limits, span)


def _costs(runs: Sequence[Compared]) -> Iterable[Picture]:
    axis = AXES["round"]
    yield from _quantities(runs, "bytes_so_far", "bytes-by-round", "bytes up and down, all devices together")
    for column, name, title in (
        ("bytes_up", "bytes-up-by-round", "bytes up in each round"),
        ("bytes_down", "bytes-down-by-round", "bytes down in each round"),
        ("clock", "time-by-round", "simulated time since the beginning"),
    ):
        yield from _quantities(runs, column, name, title)
    phases = {name: f"simulated.{name}" for name in _PHASES}
    yield from _several(runs, phases, "phases-by-round", "simulated time of each round", "s")
    for column, name, title, up in (
        ("device_seconds", "device-seconds-by-round", "time of devices at tasks", "s"),
        ("energy_joules", "energy-by-round", "energy of devices", "J"),
        ("attackers", "attackers-by-round", "updates of attackers", "updates"),
    ):
        yield from _lines(runs, column, name, title, up, axis)
    kinds = [name.removeprefix("profiles.") for name in _names(runs, lambda each: _with_prefix(each.rows, "profiles."))]
    shares = {one_line(kind, _LABEL): f"profiles.{kind}" for kind in kinds}
    if len(shares) > 1:
        yield from _several(runs, shares, "updates-by-profile", "updates by kind of device", "updates")
    for how in _changing(runs, "outcomes."):
        word = how.removeprefix("outcomes.")
        yield from _lines(runs, how, f"outcomes-{word}-by-round", f"outcomes {word}", "tasks", axis)


def _quantities(runs: Sequence[Compared], column: str, name: str, title: str) -> Iterable[Picture]:
    """A column that has a unit, in the one that fits."""
    axis = AXES["round"]
    curves = [(number, curve(each.rows, column, axis)) for number, each in enumerate(runs)]
    largest = max((max(points.y) for _, points in curves if points), default=0.0)
    if largest <= 0:
        return
    unit, word = scale("clock" if column == "clock" else "bytes_so_far", largest)
    far_apart = _far_apart([points.y for _, points in curves])
    lines = tuple(
        Line(_label(runs[number]), points.x, [y / unit for y in points.y], number)
        for number, points in ((number, _from_above_0(points, points.y, far_apart)) for number, points in curves)
        if points
    )
    yield Picture(_file(name), title, axis.label, word, lines, legend=len(runs) > 1, logarithmic=far_apart)


def _staleness(runs: Sequence[Compared]) -> Iterable[Picture]:
    for column, word in zip(_STALENESS, ("mean", "largest"), strict=True):
        title = f"{word} staleness"
        yield from _lines(runs, column, f"staleness-{word}-by-round", title, "versions", AXES["round"])


def _diagnostics(runs: Sequence[Compared]) -> Iterable[Picture]:
    for column in _changing(runs, "diagnostics.")[:_DIAGNOSTICS]:
        word = column.removeprefix("diagnostics.")
        yield from _lines(runs, column, f"diagnostics-{word}-by-round", word, word, AXES["round"])


def _changing(runs: Sequence[Compared], prefix: str) -> list[str]:
    """Columns that are not the same in all rounds of all runs."""
    return [name for name, values in _columns(runs, prefix).items() if len(set(values)) > 1]


def _constant(runs: Sequence[Compared], prefix: str) -> Iterable[str]:
    """A sentence about the columns that are the same in all rounds of all runs."""
    same = [
        f"{name.removeprefix('diagnostics.').replace('.', ' ')} {values[0]:g}"
        for name, values in _columns(runs, prefix).items()
        if len(set(values)) == 1
    ]
    if same:
        yield f"The same in every round{' of every run' if len(runs) > 1 else ''}: {', '.join(same)}."


def _columns(runs: Sequence[Compared], prefix: str) -> dict[str, list[float]]:
    told = [each for column, each in _STALENESS.items() if any(numbers(run.rows, column) for run in runs)]
    names = [name for name in _names(runs, lambda each: _with_prefix(each.rows, prefix)) if name not in told]
    return {name: [value for each in runs for value in numbers(each.rows, name)] for name in names}


def _far_apart(values: Sequence[Sequence[float]]) -> bool:
    """Whether one run is so much longer or larger than another that this one would be a line at the edge."""
    largest = [largest for each in values if each and (largest := max(each)) > 0]
    return bool(largest) and max(largest) > _TIMES * min(largest)


def _from_above_0(points: Curve, values: Sequence[float], logarithmic: bool) -> Curve:
    """The points that a scale of these values has room for, which has no 0 where it is logarithmic."""
    kept = [place for place, value in enumerate(values) if value > 0 or not logarithmic]
    return Curve(tuple(points.x[place] for place in kept), tuple(points.y[place] for place in kept))


def _to_scale(own: Sequence[Sequence[float]], number: int) -> Sequence[float]:
    """The values that the picture of one run has room for: those of all runs, or its own where that would hide one."""
    every = [value for each in own for value in each]
    return own[number] if wide(every) or _far_apart(own) else every


def _with_room(values: Sequence[float], share: float) -> tuple[float, float]:
    """From the lowest to the highest value, and a bit beyond."""
    room = share * (max(values) - min(values) or 1.0)
    return min(values) - room, max(values) + room


def _worth(runs: Sequence[Compared], axis: Axis) -> bool:
    """Whether anything moves along an axis: simulated time does not where everything is real."""
    return any(len(set(numbers(each.rows, axis.column))) > 1 or len(each.rows) == 1 for each in runs)


def _across(axis: Axis, curves: Sequence[Curve]) -> tuple[float, str]:
    unit, name = scale(axis.column, max(x for points in curves for x in points.x))
    return unit, f"{axis.label} ({name})" if name else axis.label


def _names(runs: Sequence[Compared], of: Any) -> list[str]:
    return list(dict.fromkeys(name for each in runs for name in of(each)))


def _with_prefix(rows: Iterable[Mapping[str, Any]], prefix: str) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row if name.startswith(prefix)))


def _label(each: Compared) -> str:
    return one_line(each.name, _LABEL)


def _file(name: str) -> str:
    """A name that every file system takes."""
    return re.sub(r"[^A-Za-z0-9.-]", "_", name)[:100]
