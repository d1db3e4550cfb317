"""``edgefl compare``: runs side by side by what they cost."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Annotated, Any

import typer

from edgefl.cli.output import Format, FormatOption, emit
from edgefl.errors import InvalidSettingError
from edgefl_simulation.comparing import Budget, Finished, compare, read_run
from edgefl_simulation.curves import written

__all__ = ["compare_runs"]

_WIDTH = 80
_UNITS = {"seconds": "simulated seconds", "bytes": "bytes", "joules": "joules", "rounds": "rounds"}
Cells = list[str]


def compare_runs(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Folders of `edgefl simulate`; the first is the yardstick.")
    ],
    target: Annotated[
        str, typer.Option(metavar="METRIC=VALUE", help="What runs are to reach, as in accuracy=0.8.")
    ] = "",
    metric: Annotated[
        str, typer.Option(help="The metric that counts.", show_default="that of the target, else accuracy")
    ] = "",
    budget_seconds: Annotated[
        float | None,
        typer.Option(help="Simulated seconds that each may take.", min=0, show_default="the shortest run's"),
    ] = None,
    budget_bytes: Annotated[float | None, typer.Option(help="Bytes, down and up, that each may send.", min=0)] = None,
    budget_joules: Annotated[
        float | None, typer.Option(help="Joules that its devices may spend, as far as profiles know.", min=0)
    ] = None,
    budget_rounds: Annotated[float | None, typer.Option(help="Rounds that each may have.", min=0)] = None,
    format: FormatOption = Format.text,
) -> None:
    """Compare simulations: quality under a budget, cost to a target, robustness."""
    wanted, value = _target(target) if target else ("", None)
    if metric and wanted and metric != wanted:
        raise InvalidSettingError(f"--target is about {wanted}, and --metric says {metric}: give one of them.")
    name = metric or wanted or "accuracy"
    found = _named([read_run(folder) for folder in runs])
    budget = Budget(budget_seconds, budget_bytes, budget_joules, budget_rounds)
    result = compare(found, name, budget, value)
    emit({"metric": name, **result}, format, lambda: _text(name, result))


def _target(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    try:
        return name, float(value)
    except ValueError:
        raise InvalidSettingError(f"--target expects METRIC=VALUE, as in accuracy=0.8, got {text!r:.80}.") from None


def _named(runs: list[Finished]) -> list[Finished]:
    """Calls each run like its folder, without the folders above where that suffices."""
    short = [Path(run.name).resolve().name for run in runs]
    if len(set(short)) < len(runs):
        return runs
    return [Finished(name, run.settings, run.initial, run.rounds) for name, run in zip(short, runs, strict=True)]


def _text(metric: str, result: dict[str, dict[str, Any]]) -> str:
    quality = result["quality_under_budget"]
    allowed = " and ".join(_amount(name, most) for name, most in quality["budget"].items())
    parts = [_table(f"Quality under a budget of {allowed}", _COSTS, metric, _points(quality["runs"]))]
    if target := result.get("cost_to_target"):
        rows = _points(target["runs"])
        parts.append(_table(f"Cost to a target: {metric} {target['target']:g}", _COSTS, metric, rows))
    if robustness := result.get("robustness"):
        rows = [_beside(name, run) for name, run in robustness["runs"].items()]
        title = f"Robustness, against {robustness['against']}"
        parts.append(_table(title, ("change", "time", "bytes", "attacks", "differs in"), metric, rows))
    return "\n\n".join(parts)


_COSTS = ("round", "seconds", "MB", "kJ", "device s")


def _amount(name: str, most: float) -> str:
    """A bound of a budget; large numbers of bytes in the unit of the column."""
    if name == "bytes" and most >= 1e5:
        return f"{most / 1e6:,.10g} MB"
    return f"{most:,.6g} {_UNITS[name]}"


def _points(runs: dict[str, Any]) -> list[Cells]:
    return [
        [name, *([written(point["value"]), *_spent(point)] if point else ["not reached", *[""] * len(_COSTS)])]
        for name, point in runs.items()
    ]


def _spent(point: dict[str, Any]) -> Cells:
    return [
        f"{point['rounds']}",
        f"{point['seconds']:,.0f}",
        f"{point['bytes'] / 1e6:,.2f}",
        f"{point['joules'] / 1e3:,.2f}" if point["joules"] else "–",
        f"{point['device_seconds']:,.0f}",
    ]


def _beside(name: str, run: dict[str, Any]) -> Cells:
    attacks = f"{run['attackers'] / run['updates']:.0%}" if run["updates"] else ""
    named = [each.removeprefix("hyperparameters.") for each in run["differs_in"]]
    differs = [each.rpartition(".")[2] if each.count(".") > 1 else each for each in named]
    return [
        name,
        written(run["value"]),
        f"{run['change']:+.4f}",
        f"× {run['seconds_ratio']:.2f}" if run["seconds_ratio"] else "",
        f"× {run['bytes_ratio']:.2f}" if run["bytes_ratio"] else "",
        attacks,
        ", ".join(dict.fromkeys(differs)),
    ]


def _table(title: str, columns: tuple[str, ...], metric: str, rows: list[Cells]) -> str:
    """A table of rich as text, no wider than a terminal."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("run", overflow="fold")
    for column in (metric, *columns):
        table.add_column(column, justify="left" if column == "differs in" else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    file = io.StringIO()
    Console(file=file, width=_WIDTH, highlight=False, color_system=None).print(table)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines()).strip("\n")
