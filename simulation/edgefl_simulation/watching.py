"""Tells people how a simulation goes: a bar while it runs, a table at the end; nothing where nobody looks."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from edgefl.cli.output import progress
from edgefl_simulation.curves import MEASURED_ON, measured, metrics_in, written
from edgefl_simulation.history import History, Row

__all__ = ["Lines", "Silent", "Terminal", "Watcher", "watcher_for"]

_Column = tuple[str, Callable[[Row], float | None]]
_ROWS = 12
"""Rounds that the table shows: the first, the last, and evenly between."""
_TENTHS = 10


class Watcher(Protocol):
    """Whoever is told."""

    def say(self, line: str) -> None:
        """One line about something that takes long."""

    def begin(self, devices: int, rounds: int, done: int) -> None:
        """The simulation begins, or goes on after so many rounds."""

    def round(self, row: Row) -> None:
        """A round is over."""

    def end(self, history: History) -> None:
        """So it ended."""

    def stop(self) -> None:
        """Nothing will be told any more, however it ended."""


class Silent:
    """Tells nobody, or only a function.

    Args:
        on_round: called with the row of each round.
    """

    def __init__(self, on_round: Callable[[Row], None] | None = None) -> None:
        self._on_round = on_round

    def say(self, line: str) -> None:
        """See `Watcher`."""

    def begin(self, devices: int, rounds: int, done: int) -> None:
        """See `Watcher`."""

    def round(self, row: Row) -> None:
        """See `Watcher`."""
        if self._on_round is not None:
            self._on_round(row)

    def end(self, history: History) -> None:
        """See `Watcher`."""

    def stop(self) -> None:
        """See `Watcher`."""


class Terminal(Silent):
    """A bar on standard error while it runs, and a table there at the end.

    Args:
        on_round: called with the row of each round.
        table: whether there is a table.
    """

    def __init__(self, on_round: Callable[[Row], None] | None = None, *, table: bool = True) -> None:
        super().__init__(on_round)
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self._console,
        )
        self._table = table
        self._task: Any = None

    def say(self, line: str) -> None:
        """See `Watcher`."""
        self._console.print(line, highlight=False)

    def begin(self, devices: int, rounds: int, done: int) -> None:
        """See `Watcher`."""
        self._task = self._bar.add_task(f"{devices:,} devices", total=rounds, completed=done)
        self._bar.start()

    def round(self, row: Row) -> None:
        """See `Watcher`."""
        super().round(row)
        self._bar.update(self._task, completed=row["round"], description=f"round {row['round']}: {_values(row)}")

    def end(self, history: History) -> None:
        """See `Watcher`."""
        self._bar.stop()
        if self._table:
            self._console.print(table(history))

    def stop(self) -> None:
        """See `Watcher`."""
        self._bar.stop()


class Lines(Silent):
    """A line after each tenth of the rounds, and a table at the end: for notebooks and logs, where no bar can move.

    Args:
        on_round: called with the row of each round.
    """

    def __init__(self, on_round: Callable[[Row], None] | None = None) -> None:
        super().__init__(on_round)
        self._rounds, self._tenths = 1, 0

    def say(self, line: str) -> None:
        """See `Watcher`."""
        progress(line)

    def begin(self, devices: int, rounds: int, done: int) -> None:
        """See `Watcher`."""
        self._rounds, self._tenths = max(1, rounds), done * _TENTHS // max(1, rounds)
        progress(f"{devices:,} devices, {rounds} rounds" + (f", of which {done} are done" if done else ""))

    def round(self, row: Row) -> None:
        """See `Watcher`."""
        super().round(row)
        tenths = row["round"] * _TENTHS // self._rounds
        if tenths > self._tenths:
            self._tenths = tenths
            progress(f"Round {row['round']} of {self._rounds}: {_values(row)}")

    def end(self, history: History) -> None:
        """See `Watcher`."""
        from rich.console import Console

        Console(stderr=True).print(table(history))


def watcher_for(verbose: bool | None, on_round: Callable[[Row], None] | None = None) -> Watcher:
    """Whoever is to be told.

    Args:
        verbose: None: where standard error is a terminal, which it is in no notebook.
        on_round: called with the row of each round.
    """
    terminal = bool(sys.stderr and sys.stderr.isatty())
    if verbose or (verbose is None and terminal):
        return Terminal(on_round) if terminal else Lines(on_round)
    return Silent(on_round)


def _values(row: Row) -> str:
    kind, values = measured([row])
    if not values:
        return str(row["state"])
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items()) + MEASURED_ON[kind]


def table(history: History) -> Any:
    """Rounds as a table of rich."""
    from rich.table import Table

    kind, latest = measured([history.initial, *history.rounds])
    names = list(latest)
    columns: list[_Column] = [(name + MEASURED_ON[kind], partial(_metric, kind, name)) for name in names]
    columns += _over_devices(history, names)
    found = Table(title=_title(history), title_justify="left")
    clock = "seconds" if history.rounds and history.rounds[-1]["clock"] is None else "simulated s"
    for column in ("round", clock, "outcomes", *(title for title, _ in columns)):
        found.add_column(column, justify="right")

    def add(number: object, clock: str, outcomes: str, row: Row) -> None:
        values = (value(row) for _, value in columns)
        found.add_row(str(number), clock, outcomes, *("" if each is None else written(each) for each in values))

    if history.initial:
        add(0, "0", "", history.initial)
    shown = {round(place * (len(history.rounds) - 1) / (_ROWS - 1)) for place in range(_ROWS)}
    for number, row in enumerate(history.rounds):
        if number in shown:
            outcomes = str(row["outcomes"].get("done", 0)) if row["state"] == "done" else "failed"
            add(row["round"], _seconds(row), outcomes, row)
    return found


def _title(history: History) -> str:
    rate = history.devices_per_second
    speed = f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"
    speed = f"{speed} devices trained per second" if rate else ""
    kept = f"kept in {history.folder}" if history.folder else ""
    rounds = f"{_ROWS} of {len(history.rounds)} rounds shown" if len(history.rounds) > _ROWS else ""
    return "; ".join(filter(None, (history.stopped, rounds, speed, kept)))


def _seconds(row: Row) -> str:
    """Simulated ones since the beginning; where time was real, those of the round."""
    return f"{row['seconds']:,.2f}" if row["clock"] is None else f"{row['clock']:,.0f}"


def _over_devices(history: History, names: list[str]) -> list[_Column]:
    """Columns with metrics over devices: the worst tenth; where devices train for themselves, before and after that."""

    def asked(part: str) -> list[str]:
        return [name for name in names if any(name in _part(row, part) for row in history.rounds)]

    tuned = asked("after")
    if not tuned:
        return [
            (f"worst tenth: {name}", partial(_spread, "federated", name, "worst_tenth")) for name in asked("federated")
        ]
    tuned = [name for name in tuned if name != "loss"] or tuned  # there is no room for all of it
    return [
        (f"{when} local training: {name}", partial(_spread, when, name, "mean"))
        for name in tuned
        for when in ("before", "after")
    ]


def _metric(kind: str, name: str, row: Row) -> float | None:
    """A metric of one kind; none in a round that was not evaluated."""
    return metrics_in(row, kind).get(name)


def _spread(part: str, name: str, what: str, row: Row) -> float | None:
    found: float | None = _part(row, part).get(name, {}).get(what)
    return found


def _part(row: Row, part: str) -> Row:
    """Metrics over devices: ``federated``, or ``before`` and ``after`` local training."""
    found: Row = row.get(part) or row.get("personalised", {}).get(part, {})
    return found
