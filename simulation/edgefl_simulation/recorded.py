"""The folder of a simulation read back: also one whose simulation is under way, failed, or was broken off."""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgefl.damaged_arrays import DAMAGED
from edgefl.errors import InvalidSettingError, StorageError, storage_error

__all__ = ["RecordedRun", "RunState", "is_row", "read_run", "read_summary", "read_weights"]


class RunState(str, Enum):
    """The ways in which a recorded run stands."""

    DONE = "done"
    REACHED = "ended early"
    FAILED = "failed"
    UNDER_WAY = "under way"
    BROKEN_OFF = "broken off"


@dataclass(frozen=True)
class RecordedRun:
    """A simulation as its folder tells of it.

    Attributes:
        folder: where it lies.
        state: how it stands.
        settings: all that its results follow from.
        rounds: a row each.
        summary: what came out; while nothing has, no more than how it began, where that is known.
    """

    folder: Path
    state: RunState
    settings: dict[str, Any]
    rounds: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)

    @property
    def initial(self) -> dict[str, Any]:
        """The evaluation before the first round, as in a row; empty where there is none, or none yet."""
        found = self.summary.get("initial")
        return found if isinstance(found, dict) else {}

    @property
    def stopped(self) -> str:
        """The reason why the run ended before its last round; empty otherwise."""
        return str(self.summary.get("stopped") or "")

    @property
    def failed(self) -> str:
        """The error that ended the run; empty: none did, or it goes on."""
        return str(self.summary.get("failed") or "")

    @property
    def wanted_rounds(self) -> int:
        """The number of rounds that it was to have; 0: its settings do not say."""
        found = self.settings.get("rounds")
        return found if isinstance(found, int) else 0


def read_run(folder: str | os.PathLike[str]) -> RecordedRun:
    """Reads settings, rounds and summary; while a simulation writes to the folder, what is there by now.

    Args:
        folder: as `edgefl simulate -o` leaves it.

    Raises:
        InvalidSettingError: it is no such folder.
        StorageError: a file in it cannot be read, or is damaged.
    """
    folder = Path(folder)
    if not (folder / "settings.json").is_file():
        what = "there is no settings.json in it" if folder.is_dir() else "there is no such folder"
        raise InvalidSettingError(
            f"Expected the folder of a simulation, got {str(folder)!r}: {what}.",
            hint="`edgefl simulate -o FOLDER` makes one.",
        )
    # Asked first: what is written afterwards can only be more than a run that is over has.
    busy = _is_written_to(folder)
    settings = _read_object(folder / "settings.json")
    rounds = _read_rounds(folder / "rounds.jsonl")
    summary = read_summary(folder)
    if busy or summary.get("rounds") != len(rounds):
        # A summary of other rounds is that of an earlier end, after which the run went on: from the same beginning.
        began = {name: summary[name] for name in ("initial",) if name in summary}
        return RecordedRun(folder, RunState.UNDER_WAY if busy else RunState.BROKEN_OFF, settings, rounds, began)
    found = RecordedRun(folder, RunState.DONE, settings, rounds, summary)
    state = RunState.FAILED if found.failed else RunState.REACHED if found.stopped else RunState.DONE
    return replace(found, state=state)


def read_summary(folder: Path) -> dict[str, Any]:
    """The summary of the simulation in a folder; empty: there is none yet.

    Raises:
        StorageError: it cannot be read, or is damaged.
    """
    path = folder / "summary.json"
    return _read_object(path) if path.is_file() else {}


def read_weights(folder: Path, size: int) -> NDArray[np.float32] | None:
    """The newest weights that a folder holds; None: none yet.

    Args:
        folder: of a simulation.
        size: elements that they have.

    Raises:
        StorageError: they cannot be read, are damaged, or are of another model.
    """
    path = folder / "weights.npy"
    if not path.is_file():
        return None
    try:
        weights = np.load(io.BytesIO(path.read_bytes()), allow_pickle=False)
        if not isinstance(weights, np.ndarray):
            raise ValueError("it holds several arrays")
    except (*DAMAGED, OSError, LookupError, AttributeError) as error:
        raise StorageError(f"{path} cannot be read, or is damaged: {error}.") from error
    if weights.shape != (size,) or weights.dtype != np.float32:
        raise StorageError(
            f"Expected {size:,} float32 weights in {path}, as model.tflite has, got {weights.dtype} {weights.shape}."
        )
    return np.asarray(weights)


def is_row(row: Any) -> bool:
    """Whether that is what a simulation writes of a round, as far as everybody who reads it relies on."""
    if not isinstance(row, dict) or not isinstance(row.get("round"), int):
        return False
    central = row.get("central", {})
    return isinstance(central, dict) and all(map(_is_number, central.values()))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_written_to(folder: Path) -> bool:
    """Whether a simulation holds the folder's lock (see `RunFolder`)."""
    with contextlib.suppress(OSError):  # a file system without locks: nobody can tell
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
    return False


def _read_rounds(path: Path) -> list[dict[str, Any]]:
    """Rows of a file with a line each; a last line that was cut short is left out."""
    if not path.is_file():
        return []
    lines = _read(path).split("\n")
    rows = []
    for number, line in enumerate(lines[:-1], 1):  # what follows the last line break is nothing, or half a line
        try:
            row = json.loads(line)
        except ValueError as error:
            raise StorageError(f"{path} is damaged in line {number}: {error}.") from error
        if not is_row(row):
            raise StorageError(f"{path} is damaged in line {number}: expected the row of a round, got {line!r:.80}.")
        rows.append(row)
    return rows


def _read_object(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(_read(path))
    except ValueError as error:
        raise StorageError(f"{path} is damaged: {error}.") from error
    if not isinstance(found, dict):
        raise StorageError(f"{path} is damaged: expected names and values, got {found!r:.80}.")
    return found


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise StorageError(f"{path} is damaged: {error}.") from error
    except OSError as error:
        raise storage_error(error, "read", path) from error
