"""Tables of a report: runs beside each other, the settings in which they differ, and what went wrong."""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from edgefl_server.aggregation import RunSettings, is_loss, run_settings
from edgefl_simulation.curves import DEVICES, MEASURED_ON, flat_rows, metrics_of, numbers, scale, written
from edgefl_simulation.picture import one_line
from edgefl_simulation.recorded import RecordedRun, RunState

__all__ = ["Compared", "Table", "all_settings", "differing_settings", "failed_rounds", "names_of", "overview"]

_HASH = re.compile(r"[0-9a-f]{64}")
_LONGEST = 160
_MISSING = "–"
_OF_RUNS = {each.name for each in fields(RunSettings)}
_ERRORS = 3
"""Texts of devices that are shown of a failed round."""


@dataclass(frozen=True)
class Compared:
    """A run of a report.

    Attributes:
        name: no other run of the report has it.
        run: as recorded.
        rows: its rounds with flat columns, see `flat_rows`.
    """

    name: str
    run: RecordedRun
    rows: Sequence[Mapping[str, Any]]

    @classmethod
    def of(cls, runs: Sequence[RecordedRun]) -> list[Compared]:
        """Gives each run a name."""
        names = names_of([os.path.abspath(run.folder) for run in runs])  # noqa: PTH100 - links keep their names
        return [cls(name, run, flat_rows(run.initial, run.rounds)) for name, run in zip(names, runs, strict=True)]

    @property
    def standing(self) -> str:
        """The state of the run in words."""
        state: str = self.run.state.value
        if self.run.state is RunState.DONE:
            return state
        if self.run.state is RunState.REACHED:
            return f"{state}: {one_line(self.run.stopped, _LONGEST)}"
        how_far = f"{state} after {len(self.run.rounds)} of {self.run.wanted_rounds} rounds"
        why = one_line(self.run.failed.removeprefix("The run failed: "), 2 * _LONGEST)
        return f"{how_far}: {why}" if why else how_far


@dataclass(frozen=True)
class Table:
    """A table of texts.

    Attributes:
        header: a name for each column.
        rows: as many texts each.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def names_of(paths: Sequence[str]) -> list[str]:
    """Names for folders: the last part of each path, and as many before it as tell it from the others."""
    parts = [Path(path).parts[1:] or (path,) for path in paths]
    longest = max(map(len, parts), default=0)
    for count in range(1, longest + 1):
        names = ["/".join(each[-count:]) for each in parts]
        if len(set(names)) == len(names):
            break
    return [one_line(name, 60) for name in names] if paths else []


def overview(runs: Sequence[Compared]) -> Table:
    """A line for each run: how far it is, and how good."""
    metrics = list(dict.fromkeys(name for each in runs for name in metrics_of(each.rows, "central")))
    spread = list(dict.fromkeys(name for each in runs for name in metrics_of(each.rows, "federated")))
    training = (
        []
        if metrics or spread
        else list(dict.fromkeys(name for each in runs for name in metrics_of(each.rows, "training")))
    )
    columns = [(name, f"central.{name}") for name in metrics]
    if not metrics:
        columns += [(f"{name}{MEASURED_ON[DEVICES]}", f"federated.{name}.mean") for name in spread]
    columns += [(f"{name}, worst tenth", f"federated.{name}.worst_tenth") for name in spread]
    columns += [(f"{name}{MEASURED_ON['training']}", f"training.{name}") for name in training]
    with_bytes = any(numbers(each.rows, "bytes_so_far") for each in runs)
    lines = []
    for each in runs:
        rounds = each.run.rounds
        failed = sum(row.get("state") == "failed" for row in rounds)
        line = [each.name, each.standing, f"{len(rounds)}" + (f", {failed} failed" if failed else "")]
        line.append(_quantity("clock", each.rows))
        if with_bytes:
            line.append(_quantity("bytes_so_far", each.rows))
        lines.append((*line, *(_latest_and_best(name, column, each.rows) for name, column in columns)))
    header = ["run", "how it stands", "rounds", "simulated time", *(["up and down"] if with_bytes else [])]
    return Table((*header, *(name for name, _ in columns)), tuple(lines))


def differing_settings(runs: Sequence[Compared]) -> Table:
    """The settings that are not the same in all runs; no rows for a single one."""
    # Beside a run without a profile every line of one would be a difference.
    whole = all(isinstance(each.run.settings.get("profile"), Mapping) for each in runs)
    settings = [_settings(each, whole_profile=whole) for each in runs]
    names = sorted({name for each in settings for name in each})
    lines = [(name, *(each.get(name, _MISSING) for each in settings)) for name in names]
    return Table(_header(runs), tuple(line for line in lines if len(set(line[1:])) > 1))


def all_settings(runs: Sequence[Compared]) -> Table:
    """Every setting of every run."""
    settings = [_settings(each) for each in runs]
    names = sorted({name for each in settings for name in each})
    return Table(_header(runs), tuple((name, *(each.get(name, _MISSING) for each in settings)) for name in names))


def failed_rounds(runs: Sequence[Compared]) -> Table:
    """The rounds of which nothing came, with what is known of the reason."""
    lines = []
    for each in runs:
        for row in each.run.rounds:
            if row.get("state") == "failed":
                outcomes = ", ".join(f"{count} {how}" for how, count in _object(row.get("outcomes")).items())
                said = " / ".join(map(str, _list(row.get("errors"))[:_ERRORS]))
                why = one_line(str(row.get("why") or _MISSING), _LONGEST)
                lines.append((each.name, str(row["round"]), why, outcomes or _MISSING, one_line(said, 400) or _MISSING))
    return Table(("run", "round", "why", "outcomes", "devices said"), tuple(lines))


def shown(value: Any) -> str:
    """A plain value as people read it."""
    if isinstance(value, float):
        return f"{value:.10g}"
    if isinstance(value, str):
        return f"{value[:12]}…" if _HASH.fullmatch(value) else one_line(value, _LONGEST) or _MISSING
    return "none" if value is None else one_line(json.dumps(value), _LONGEST)


def _settings(each: Compared, *, whole_profile: bool = True) -> dict[str, str]:
    settings, profile = each.run.settings, each.run.settings.get("profile")
    if not whole_profile and isinstance(profile, Mapping):
        settings = {**settings, "profile": _kinds(profile)}
    found = {}
    for name, value in _entries("", settings):
        words = _unless_given().get(name) if not value else None
        found[one_line(name, _LONGEST)] = words or shown(value)
    return found


@functools.cache
def _unless_given() -> Mapping[str, str]:
    """The words of help for settings that were left out, where nothing, or 0, stands for that."""
    words = {each.name: each.shown for each in run_settings() if not each.default and each.shown}
    own = {name: words[name].replace("the target", "the cohort") for name in words if name in _OF_RUNS - {"staleness"}}
    return {**own, "devices": "as many as the partition says", "evaluate_devices": "the cohort"}


def _kinds(profile: Mapping[str, Any]) -> str:
    """A profile in a line: its kinds of devices, and what attackers do."""
    kinds = [str(_object(each).get("name")) for each in _list(profile.get("devices"))]
    attacks = [f"attackers: {_object(each).get('kind')}" for each in _list(profile.get("attackers"))]
    return ", ".join((*kinds, *attacks))


def _entries(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """The single settings in one that is made of several: kinds of devices and of attackers by name or number."""
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield from _entries(f"{name}.{key}" if name else str(key), each)
    elif isinstance(value, list) and any(isinstance(each, Mapping) for each in value):
        for number, each in enumerate(value, start=1):
            named = isinstance(each, Mapping) and isinstance(each.get("name"), str)
            yield from _entries(f"{name}.{each['name'] if named else number}", each)
    elif isinstance(value, list):
        yield name, ", ".join(map(shown, value))
    else:
        yield name, value


def _header(runs: Iterable[Compared]) -> tuple[str, ...]:
    return ("setting", *(each.name for each in runs))


def _quantity(column: str, rows: Iterable[Mapping[str, Any]]) -> str:
    found = numbers(rows, column)
    if not found:
        return _MISSING
    unit, name = scale(column, max(found))
    return f"{found[-1] / unit:,.4g} {name}"


def _latest_and_best(name: str, column: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """The latest value; the best one and its round where that is another; and where a metric stopped to be a number."""
    found = [row for row in rows if row.get(column) is not None]
    finite = [row for row in found if numbers([row], column)]
    if not finite:
        return _MISSING if not found else "not a number"
    latest = finite[-1]
    best = (min if is_loss(name) else max)(finite, key=lambda row: float(row[column]))
    text = written(latest[column])
    if found[-1] is not latest:
        text += f", then not a number (round {found[found.index(latest) + 1]['round']})"
    return text if best[column] == latest[column] else f"{text} (best {written(best[column])}, round {best['round']})"


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else []
