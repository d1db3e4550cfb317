"""``edgefl report``: a page about simulations beside each other."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from edgefl.cli.output import Format, FormatOption, emit
from edgefl_simulation.report.comparing import Compared
from edgefl_simulation.report.reporting import Report
from edgefl_simulation.report.reporting import report as write_report

__all__ = ["report"]


def report(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Folders that edgefl simulate -o has left, or writes to.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The page; an earlier report is replaced.")] = Path(
        "report.html"
    ),
    png: Annotated[Path | None, typer.Option(metavar="FOLDER", help="The pictures as PNG files, too.")] = None,
    format: FormatOption = Format.text,
) -> None:
    """Make one HTML page of simulations side by side: accuracy, spread over devices, cost, settings, failures."""
    done = write_report(runs, out, png)
    emit(_document(done), format, lambda: _text(done))


def _document(done: Report) -> dict[str, Any]:
    return {
        "report": str(done.page),
        "pictures": list(map(str, done.pictures)),
        "runs": [_run(each) for each in done.runs],
    }


def _run(each: Compared) -> dict[str, Any]:
    return {
        "name": each.name,
        "folder": str(each.run.folder),
        "state": each.run.state.value,
        "rounds": len(each.run.rounds),
    }


def _text(done: Report) -> str:
    lines = []
    for row in done.overview.rows:
        name, standing, *values = row
        lines.append(f"{name}: {standing}")
        lines += [f"  {title}: {value}" for title, value in zip(done.overview.header[2:], values, strict=True)]
    lines.append(f"{done.page}: open it in a browser; it needs no network.")
    if done.pictures:
        count = len(done.pictures)
        lines.append(f"{done.pictures[0].parent}: {count} picture{'s' if count != 1 else ''}.")
    return "\n".join(lines)
