"""Trace files: when real devices were there, line by line. What is not whole is refused with its line.

    device,from,to,state
    kitchen,0,3600,on
    kitchen,3600,86400,off
    attic,0,86400,on

Each device's lines follow each other without a hole from 0 to the end, which is the same for all, and from which on
the trace begins anew. The files that FedScale ships are pickles, which run what they hold; none is read here.
"""

from __future__ import annotations

import bisect
import csv
import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from edgefl.errors import DataError
from edgefl_simulation.draws import uniform
from edgefl_simulation.profiles.availability import Member

__all__ = ["Trace", "read_trace"]

_HEADER = ["device", "from", "to", "state"]
_STATES = {"on": True, "off": False}


@dataclass(frozen=True)
class _Line:
    number: int
    device: str
    start: float
    end: float
    there: bool


@dataclass(frozen=True)
class Trace:
    """Devices that are there when those of a file were.

    A device of the fleet that is called like one of the file is like that one, another like one that is drawn for it.

    Attributes:
        sha256: of the file.
        seconds: until it begins anew.
        stretches: for each device of the file the ends of its stretches, and whether it is there in each.
    """

    kind: ClassVar[str] = "trace"
    sha256: str
    seconds: float
    stretches: Mapping[str, tuple[tuple[float, ...], tuple[bool, ...]]] = field(repr=False)

    def stretch(self, who: Member, now: float) -> tuple[bool, float]:
        """See `edgefl_simulation.profiles.availability.Availability`."""
        ends, states = self.stretches[who.name] if who.name in self.stretches else self._drawn(who)
        if len(set(states)) == 1:
            return states[0], math.inf
        turn, place = divmod(now, self.seconds)
        number = min(bisect.bisect_right(ends, place), len(ends) - 1)
        return states[number], turn * self.seconds + ends[number]

    def _drawn(self, who: Member) -> tuple[tuple[float, ...], tuple[bool, ...]]:
        names = list(self.stretches)
        return self.stretches[names[int(uniform(who.seed, "trace", who.device) * len(names))]]


def read_trace(path: Path) -> Trace:
    """Reads a trace file.

    Args:
        path: a CSV, as above.

    Raises:
        DataError: it cannot be read, or a line does not fit; the message names the line.
    """
    try:
        data = path.read_bytes()
        text = data.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"The trace {path} cannot be read: {error}.") from error
    rows = csv.reader(text.splitlines())
    if next(rows, None) != _HEADER:
        raise DataError(f"{path}, line 1: expected {','.join(_HEADER)}.")
    lines: dict[str, list[_Line]] = {}
    for number, row in enumerate(rows, 2):
        if row:
            line = _line(path, number, row)
            _check_follows(path, lines.setdefault(line.device, []), line)
            lines[line.device].append(line)
    if not lines:
        raise DataError(f"The trace {path} has no line of a device.")
    _check_ends(path, lines)
    stretches = {
        device: (tuple(each.end for each in own), tuple(each.there for each in own)) for device, own in lines.items()
    }
    return Trace(hashlib.sha256(data).hexdigest(), next(iter(lines.values()))[-1].end, stretches)


def _line(path: Path, number: int, row: list[str]) -> _Line:
    where = f"{path}, line {number}"
    if len(row) != len(_HEADER):
        raise DataError(f"{where}: expected {len(_HEADER)} values ({','.join(_HEADER)}), got {len(row)}.")
    device, first, last, state = (value.strip() for value in row)
    if not device:
        raise DataError(f"{where}: expected the name of a device, got nothing.")
    times = []
    for name, value in (("from", first), ("to", last)):
        try:
            times.append(float(value))
        except ValueError:
            raise DataError(f"{where}: {name} expects seconds, got {value!r:.80}.") from None
        if not (math.isfinite(times[-1]) and times[-1] >= 0):
            raise DataError(f"{where}: {name} expects seconds of at least 0, got {value}.")
    if times[1] <= times[0]:
        raise DataError(f"{where}: to expects more than from, {first}, got {last}.")
    if state not in _STATES:
        raise DataError(f"{where}: state expects on or off, got {state!r:.80}.")
    return _Line(number, device, times[0], times[1], _STATES[state])


def _check_follows(path: Path, before: list[_Line], line: _Line) -> None:
    """Makes sure that a device's line goes on where the one before ends.

    Raises:
        DataError: it does not.
    """
    where = f"{path}, line {line.number}: device {line.device!r:.80}"
    if not before:
        if line.start > 0:
            raise DataError(f"{where} has a hole from 0 to {line.start:g}.", hint="Say whether it was on or off then.")
        return
    latest = before[-1]
    if line.start < latest.start:
        raise DataError(
            f"{where} goes back from {latest.start:g} (line {latest.number}) to {line.start:g}.",
            hint="Sort each device's lines by time.",
        )
    if line.start < latest.end:
        raise DataError(
            f"{where} overlaps line {latest.number}: it begins at {line.start:g}, before {latest.end:g}.",
        )
    if line.start > latest.end:
        raise DataError(
            f"{where} has a hole from {latest.end:g} (line {latest.number}) to {line.start:g}.",
            hint="Say whether it was on or off then.",
        )


def _check_ends(path: Path, lines: Mapping[str, list[_Line]]) -> None:
    """Makes sure that all devices' lines end at one time.

    Raises:
        DataError: they do not.
    """
    longest = max((own[-1] for own in lines.values()), key=lambda line: line.end)
    for own in lines.values():
        latest = own[-1]
        if latest.end < longest.end:
            raise DataError(
                f"{path}, line {latest.number}: device {latest.device!r:.80} has a hole from {latest.end:g} to "
                f"{longest.end:g}, where device {longest.device!r:.80} ends (line {longest.number}).",
                hint="Say whether it was on or off then.",
            )
