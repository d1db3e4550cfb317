"""The end of the example: tables of 80 columns, and summary.json."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from edgefl import History
from edgefl.atomic import write_text
from examples.keyboard.suggesting import Moment

__all__ = ["WIDTH", "Result", "tables", "write_summary"]

WIDTH = 80
SHOWN_MOMENTS = 8
METRIC = "accuracy"
_OFFERING = {"base": "the base", "adapters": "the fleet's model"}


@dataclass(frozen=True)
class Result:
    """Everything that a run of the example has measured.

    Attributes:
        base: what `examples.keyboard.model.pretrain` has written about the base.
        devices: how many there are.
        characters: on all of them together.
        update_bytes: of one update, by model file.
        file_bytes: of each model file.
        trained: numbers that each model file trains, whether they travel or not.
        histories: of the simulations, by name.
        epochs: passes over a device's own text with which each was tested once more.
        moments: words that were guessed.
        guesses: the three words for each moment, from the base and from the fleet's model.
        spelled_today: the words that the play has in today's spelling, too.
        protocols: what `edgefl compare` says of the simulations.
        seconds: the whole example.
    """

    base: Mapping[str, Any]
    devices: int
    characters: int
    update_bytes: Mapping[str, int]
    file_bytes: Mapping[str, int]
    trained: Mapping[str, int]
    histories: Mapping[str, History]
    epochs: int
    moments: Sequence[Moment]
    guesses: Mapping[str, Sequence[tuple[str, ...]]]
    spelled_today: Collection[str]
    protocols: str
    seconds: float

    @property
    def words(self) -> dict[str, dict[str, float]]:
        """The share of words among the three that each model offers: of all, of those spelled as today, of others."""
        today = [moment.word in self.spelled_today for moment in self.moments]
        kinds = {"all": [True] * len(today), "as_today": today, "otherwise": [not each for each in today]}
        found: dict[str, dict[str, float]] = {}
        for name, guesses in self.guesses.items():
            right = [moment.word in offered for moment, offered in zip(self.moments, guesses, strict=True)]
            found[name] = {
                kind: sum(itertools.compress(right, which)) / max(1, sum(which)) for kind, which in kinds.items()
            }
        return found

    @property
    def quality(self) -> dict[str, dict[str, float | None]]:
        """By contender: the metric on the unseen play, and the mean over devices before and after local training."""
        first = self.histories["adapters"]
        rows = {"base": first.initial, **{name: _last(each) for name, each in self.histories.items()}}
        return {name: _figures(row) for name, row in rows.items() if name in {"base", "adapters", "personal", "whole"}}

    def summary(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "base": self.base,
            "devices": self.devices,
            "characters": self.characters,
            "update_bytes": self.update_bytes,
            "file_bytes": self.file_bytes,
            "trained": self.trained,
            METRIC: self.quality,
            "words_in_three": {
                name: {kind: round(share, 4) for kind, share in shares.items()} for name, shares in self.words.items()
            },
            "runs": {name: history.summary() for name, history in self.histories.items()},
            "seconds": round(self.seconds, 1),
        }


def write_summary(result: Result, path: Path) -> None:
    """Writes summary.json."""
    write_text(path, json.dumps(result.summary(), indent=2) + "\n")


def tables(result: Result) -> str:
    """What people read at the end, no wider than a terminal."""
    return "\n\n".join([_quality(result), _travel(result), result.protocols, _words(result), _suggestions(result)])


def _last(history: History) -> Mapping[str, Any]:
    return next((row for row in reversed(history.rounds) if row.get("central")), history.initial)


def _figures(row: Mapping[str, Any]) -> dict[str, float | None]:
    tuned = row.get("personalised")
    return {
        "unseen": row["central"][METRIC],
        "devices": row["federated"][METRIC]["mean"],
        "worst_tenth": row["federated"][METRIC]["worst_tenth"],
        "devices_after": tuned["after"][METRIC]["mean"] if tuned else None,
    }


def _quality(result: Result) -> str:
    table = _table("Next characters guessed right, in the spelling of 1623")
    table.add_column("model")
    for column in ("unseen play", "devices", "worst tenth", f"+ {_passes(result.epochs)} alone"):
        table.add_column(column, justify="right")
    titles = {
        "base": "the base",
        "adapters": "the fleet's adapters",
        "personal": "some of them personal",
        "whole": "the whole network",
    }
    for name, found in result.quality.items():
        keys = ("unseen", "devices", "worst_tenth", "devices_after")
        table.add_row(titles[name], *(_share(found[key]) for key in keys))
    return _text(table)


def _travel(result: Result) -> str:
    table = _table("What a device is sent once, and what travels each way")
    for column in ("model file", "trained there", "file, kB", "travels, kB"):
        table.add_column(column, justify="left" if column == "model file" else "right")
    for kind, size in result.update_bytes.items():
        table.add_row(
            f"{kind}.tflite", f"{result.trained[kind]:,}", f"{result.file_bytes[kind] / 1e3:,.0f}", f"{size / 1e3:,.1f}"
        )
    return _text(table)


def _words(result: Result) -> str:
    today = sum(moment.word in result.spelled_today for moment in result.moments)
    table = _table("One letter typed: the right word is one of three that are offered")
    for column in ("model", "all", "spelled as today", "otherwise"):
        table.add_column(column, justify="left" if column == "model" else "right")
    table.add_row(
        "words of the unseen play", *(f"{n:,}" for n in (len(result.moments), today, len(result.moments) - today))
    )
    for name, title in _OFFERING.items():
        table.add_row(title, *map(_share, result.words[name].values()))
    return _text(table)


def _suggestions(result: Result) -> str:
    table = _table("Some of them, evenly from beginning to end")
    table.add_column("typed so far", justify="right")
    for column in ("meant", *_OFFERING.values()):
        table.add_column(column)
    chosen = range(0, len(result.moments), max(1, len(result.moments) // SHOWN_MOMENTS))
    for index in chosen[:SHOWN_MOMENTS]:
        moment = result.moments[index]
        typed = moment.before[-18:].replace("\n", " ")
        table.add_row(typed, moment.word, *(", ".join(result.guesses[name][index]) for name in _OFFERING))
    return _text(table)


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", title_style="", box=box.SIMPLE_HEAD, pad_edge=False)


def _text(table: Table) -> str:
    file = io.StringIO()
    Console(file=file, width=WIDTH, highlight=False, color_system=None).print(table)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines()).strip("\n")


def _passes(count: int) -> str:
    return "1 pass" if count == 1 else f"{count} passes"


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"
