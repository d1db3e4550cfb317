"""Reads the folders of simulations, and writes a page and pictures about them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from edgefl.atomic import write_bytes, write_text
from edgefl.errors import InvalidSettingError, storage_error
from edgefl_simulation.picture import is_own_png, one_line, png
from edgefl_simulation.recorded import read_run
from edgefl_simulation.report.comparing import Compared, Table, overview
from edgefl_simulation.report.page import GENERATOR, page
from edgefl_simulation.report.pictures import sections

__all__ = ["Report", "report"]

_HEAD = 4096
"""Bytes of a page within which it says what made it."""


@dataclass(frozen=True)
class Report:
    """The files that a report is.

    Attributes:
        page: the HTML file.
        pictures: PNG files; none unless they were asked for.
        runs: as the page shows them.
        overview: the page's first table.
    """

    page: Path
    pictures: tuple[Path, ...]
    runs: tuple[Compared, ...]
    overview: Table


def report(
    folders: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    pictures: str | os.PathLike[str] | None = None,
) -> Report:
    """Writes a page about simulations, also about one that is under way or was broken off.

    Args:
        folders: as `edgefl simulate -o` leaves them; at least one, none twice.
        out: the HTML file; an earlier report is replaced.
        pictures: a folder for the same pictures as PNGs, in which those of an earlier report are replaced; None: they
            are in the page only.

    Raises:
        InvalidSettingError: a folder is none, or given twice; or ``out`` is a file that is no report.
        StorageError: something cannot be read or written, or is damaged.
        MissingDependencyError: matplotlib or Jinja2 is not installed.
    """
    out = Path(out)
    if not folders:
        raise InvalidSettingError("Expected the folder of at least one simulation, got none.")
    seen: dict[Path, Path] = {}
    for folder in map(Path, folders):
        if (real := folder.resolve()) in seen:
            raise InvalidSettingError(
                f"Expected each run once, got {seen[real]} and {folder}, which are the same folder."
            )
        seen[real] = folder
    _check_replaceable(out)
    runs = Compared.of([read_run(folder) for folder in seen.values()])
    found = sections(runs)
    title = one_line(runs[0].name if len(runs) == 1 else " · ".join(each.name for each in runs), 120)
    text = page(title, runs, found, datetime.now().astimezone())
    images = [(f"{each.name}.png", png(each)) for part in found for each in part.pictures] if pictures else []
    written = []
    if pictures:
        folder = Path(pictures)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage_error(error, "make the folder", folder) from error
        for name, data in images:
            write_bytes(folder / name, data)
            written.append(folder / name)
        _remove_pictures_of_before(folder, written)
    write_text(out, text)
    return Report(out, tuple(written), tuple(runs), overview(runs))


def _remove_pictures_of_before(folder: Path, written: Sequence[Path]) -> None:
    """Removes what an earlier report has left and this one has not written; other pictures stay.

    Raises:
        StorageError: one cannot be read or removed.
    """
    for path in sorted({*folder.glob("*.png")}.difference(written)):
        try:
            with path.open("rb") as file:
                own = is_own_png(file.read(_HEAD))
            if own:
                path.unlink()
        except OSError as error:
            raise storage_error(error, "remove", path) from error


def _check_replaceable(out: Path) -> None:
    """Makes sure that only a report is replaced by one.

    Raises:
        InvalidSettingError: there is another file, or a folder.
        StorageError: it cannot be read.
    """
    if out.is_dir():
        raise InvalidSettingError(
            f"Expected a file for the report, got the folder {out}.", hint=f"As in {out}/report.html."
        )
    if not out.exists():
        return
    try:
        with out.open("rb") as file:
            head = file.read(_HEAD)
    except OSError as error:
        raise storage_error(error, "read", out) from error
    if f'content="{GENERATOR}"'.encode() not in head:
        raise InvalidSettingError(
            f"{out} is there already, and is no report.", hint="Choose another file for the report, or remove that one."
        )
