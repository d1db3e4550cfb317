"""CSV: a header of names, then numbers; the column of owners may hold words. Read piece by piece."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgefl.errors import DataError
from edgefl_simulation.data.advice import AS_OWNER, LEFT_OUT
from edgefl_simulation.data.arrays import from_arrays
from edgefl_simulation.data.base import DataSet
from edgefl_simulation.data.columns import WEIGHT, missing, require_owner
from edgefl_simulation.data.owners import Owners
from edgefl_simulation.data.spool import Gathering

__all__ = ["read_csv"]

_LINES = 1024
"""Lines that are read at a time."""


def read_csv(path: Path, owner: str, wanted: Sequence[str]) -> DataSet:
    """Reads a table.

    Args:
        path: of the file, in UTF-8.
        owner: the column that says whose each row is, where there is one of this name.
        wanted: the columns to read beside it; none: all of them.

    Raises:
        DataError: a line has more or fewer cells than the header, or a cell holds no number.
        OSError: it cannot be read.
        StorageError: the disk is full.
    """
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        try:
            header = [name.strip() for name in next(reader, [])]
            names = _chosen(header, owner, wanted, path)
            gathering, owners = Gathering(str(path)), Owners()
            while lines := list(itertools.islice(reader, _LINES)):
                first = reader.line_num - len(lines) + 1
                whole = [line for line in lines if line]
                if any(len(line) != len(header) for line in whole):
                    raise _uneven(lines, first, header, path)
                if not whole:
                    continue
                cells = dict(zip(header, zip(*whole, strict=True), strict=True))
                gathering.add({name: _numbers(name, cells[name], lines, first, header, path) for name in names})
                if owner in header:
                    owners.add(cell.strip() for cell in cells[owner])
        except csv.Error as error:
            raise DataError(f"Line {reader.line_num} of {path} is no line of a CSV: {error}.") from error
        except UnicodeDecodeError as error:
            raise DataError(f"{path} is no text in UTF-8: {error}.", hint="Save it as CSV in UTF-8.") from error
    if not gathering.rows:
        raise DataError(f"{path} has a header and no rows.")
    arrays = gathering.arrays()
    if owner not in header:
        return from_arrays(arrays, owner, str(path))
    numbers, found = owners.finished()
    return from_arrays({**arrays, owner: numbers}, owner, str(path), found)


def _chosen(header: Sequence[str], owner: str, wanted: Sequence[str], path: Path) -> list[str]:
    """The columns to read."""
    if not header:
        raise DataError(f"{path} is empty.", hint="Its first line is a header: the names of the columns.")
    twice = sorted({name for name in header if header.count(name) > 1})
    if len(header) < 2 or twice:
        got = f"{twice[0]!r:.80} twice" if twice else f"{','.join(header)!r:.80}"
        raise DataError(f"Expected a header of at least two different names in {path}, got {got}.")
    if "" in header:
        raise DataError(f"Column {header.index('') + 1} of {path} has no name in the header.", hint="Give it one.")
    require_owner(owner, header, str(path))
    if lacking := [name for name in wanted if name not in (*header, WEIGHT)]:
        raise missing(lacking[0], header, str(path))
    return [name for name in header if name != owner and (not wanted or name in wanted)]


def _numbers(
    name: str, cells: Sequence[str], lines: list[list[str]], first: int, header: Sequence[str], path: Path
) -> NDArray[np.float64]:
    try:
        return np.fromiter(map(float, cells), np.float64, len(cells))
    except ValueError:
        place = header.index(name)
        number, cell = next((at, line[place]) for at, line in enumerate(lines) if line and not _is_number(line[place]))
        got = f"{cell!r:.60}" if cell.strip() else "an empty cell"
        raise DataError(
            f"The column {name!r} of {path} expects numbers, got {got} in line {first + number}.",
            hint=f"Fill in what is missing, write classes as 0, 1, 2, …, or {LEFT_OUT}. {AS_OWNER}",
        ) from None


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _uneven(lines: list[list[str]], first: int, header: Sequence[str], path: Path) -> DataError:
    number, line = next((at, each) for at, each in enumerate(lines) if each and len(each) != len(header))
    return DataError(
        f"Line {first + number} of {path} has {len(line)} cells, the header {len(header)} names.",
        hint="Cells are separated by commas; text with a comma in it stands in quotation marks.",
    )
