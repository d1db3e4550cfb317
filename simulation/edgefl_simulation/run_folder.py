"""The folder of a simulation: its settings, a line for each round, the newest weights, and where to go on from.

Everything that a round leaves follows from the settings and from the round before, so that a run that was killed may
go on from any earlier round and ends with the same bits. Nothing is forced onto the disk: a process that dies loses
nothing of what it wrote, and after a power cut a checkpoint that is no whole file is refused.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import json
import os
import shutil
import time
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgefl.atomic import is_part_of, write_bytes, write_text
from edgefl.damaged_arrays import DAMAGED
from edgefl.errors import InvalidSettingError, MessageError, StorageError, storage_error
from edgefl_server.aggregation import SettingError, StrategyState
from edgefl_simulation.changed_settings import changed
from edgefl_simulation.plans import Checkpoint
from edgefl_simulation.recorded import is_row, read_summary
from edgefl_simulation.round_table import parquet
from edgefl_simulation.under_way import UnderWay

__all__ = ["RunFolder"]

_SETTINGS, _ROUNDS, _WEIGHTS, _CHECKPOINT = "settings.json", "rounds.jsonl", "weights.npy", "checkpoint.npz"
_SUMMARY, _MODEL, _TABLE = "summary.json", "model.tflite", "rounds.parquet"
_PAUSE = 1.0
"""Seconds between two checkpoints: what is lost with the process is computed again, to the same bits."""
_TIMES = 20
"""Times as long as it takes to write one, at least, where a model is large."""
_SLOT, _VERSION, _PROGRESS = "slot/", "version/", "progress"


_PHRASES = 3
"""Settings that a refusal names, where more than one is another one."""
_PATIENCE, _LOOK = 1.0, 0.05
"""Seconds for which whoever only looks whether the folder is written to may hold it, and between two tries."""


class RunFolder:
    """A folder that a simulation writes to. While it does, no other one may: `close` lets go of it.

    Args:
        folder: where.
        settings: all that the results follow from, as plain values.
        resume: go on where the folder is; else it must be new.

    Attributes:
        is_new: there was nothing to go on from.

    Raises:
        InvalidSettingError: the folder is there already, or of other settings, or another process writes to it.
        StorageError: it cannot be written or read.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], resume: bool) -> None:
        self.folder = folder
        self._settings = json.loads(json.dumps(settings))
        self._latest, self._pause = 0.0, _PAUSE
        self._lock = -1
        try:
            self._was_there = folder.exists()
            there = (folder / _SETTINGS).exists()
        except (OSError, ValueError) as error:  # a name that is too long, or has a NUL in it
            raise InvalidSettingError(
                f"Expected a folder for the results, got {str(folder)!r:.80}: {error!s:.80}.",
                hint="Choose another name.",
            ) from error
        if self._was_there and not folder.is_dir():
            raise InvalidSettingError(
                f"Expected a folder for the results, got {folder}, which is none.", hint="Choose another one."
            )
        if there and not resume:
            raise SettingError(
                f"{folder} holds a simulation already.", hint="Go on with it ({resume}), or choose another folder."
            )
        if not there and folder.exists() and any(not _is_left_over(each.name) for each in folder.iterdir()):
            raise InvalidSettingError(
                f"{folder} is not empty and holds no simulation.", hint="Choose another folder for the results."
            )
        if there:
            self._check_settings()
        self.is_new = not there
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage_error(error, "make the folder", folder) from error
        self._hold()
        self._tidy()
        if not there:
            try:
                write_text(folder / _SETTINGS, json.dumps(self._settings, indent=2) + "\n")
            except BaseException:
                self.abandon()
                self.close()
                raise

    def abandon(self) -> None:
        """Takes back a new folder whose run was refused before it began: another try finds nothing in its way."""
        if not self.is_new or (self.folder / _ROUNDS).exists():
            return
        for name in (_SETTINGS, _MODEL):
            with contextlib.suppress(OSError):  # what stays is named by the next start
                (self.folder / name).unlink()
        self.clear_rows()
        if not self._was_there:
            with contextlib.suppress(OSError):  # somebody has put something else there
                self.folder.rmdir()

    def close(self) -> None:
        """Lets another process write to the folder."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    @property
    def model(self) -> Path:
        """The path of the model file."""
        return self.folder / _MODEL

    @property
    def memories(self) -> Path:
        """The folder for what devices remember."""
        return self.folder / "memories"

    @property
    def tables(self) -> Path:
        """The folder for rows, which are there while the simulation runs."""
        return self.folder / "tables"

    def keep_model(self, data: bytes) -> None:
        """Writes the model file.

        Raises:
            StorageError: it cannot be written.
        """
        if self.model.is_file():
            try:
                if self.model.read_bytes() == data:
                    return
            except OSError as error:
                raise storage_error(error, "read", self.model) from error
        write_bytes(self.model, data)

    def restore(self, initial: StrategyState) -> tuple[Checkpoint, list[dict[str, Any]]] | None:
        """Reads where to go on from, and forgets the rounds after it; None: from the beginning.

        Args:
            initial: the state that the run began with.

        Raises:
            StorageError: it cannot be read, is damaged, or does not fit the model.
        """
        path = self.folder / _CHECKPOINT
        if not path.exists():
            self._write_rounds([])
            return None
        try:
            with zipfile.ZipFile(path):  # a single array would be read, too
                arrays = dict(np.load(path, allow_pickle=False))
            progress = json.loads(arrays.pop(_PROGRESS).tobytes())
            checkpoint = _checkpoint(arrays, progress, initial)
            rounds = self._read_rounds(checkpoint.fold)
        except (*DAMAGED, OSError, LookupError, TypeError, AttributeError, MessageError) as error:
            raise StorageError(
                f"{path} cannot be read, or is damaged: {error}.", hint="Delete it to begin the run anew."
            ) from error
        self._write_rounds(rounds)
        return checkpoint, rounds

    def add_round(self, row: Mapping[str, Any]) -> None:
        """Adds a line.

        Raises:
            StorageError: it cannot be written.
        """
        path = self.folder / _ROUNDS
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as error:
            raise storage_error(error, "write", path) from error

    def keep(self, checkpoint: Checkpoint, *, at_once: bool = False) -> bool:
        """Writes the weights and where to go on from, unless that was done a moment ago; whether it was written.

        Args:
            checkpoint: between two folds.
            at_once: in any case.

        Raises:
            StorageError: it cannot be written.
        """
        began = time.monotonic()
        if not at_once and began - self._latest < self._pause:
            return False
        open_ones = checkpoint.under_way
        progress: dict[str, Any] = {name: value for name, value in vars(checkpoint).items() if name != "state"}
        progress["under_way"] = open_ones and open_ones.to_json()
        arrays = _arrays("", checkpoint.state)
        for number, state in (open_ones.versions if open_ones else {}).items():
            if number != checkpoint.version:
                arrays |= _arrays(f"{_VERSION}{number}/", state)
        arrays[_PROGRESS] = np.frombuffer(json.dumps(progress).encode(), np.uint8)
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        write_bytes(self.folder / _CHECKPOINT, buffer.getvalue())
        self._write_weights(checkpoint.state.weights)
        self._latest = time.monotonic()
        self._pause = _PAUSE * max(1.0, _TIMES * (self._latest - began))
        return True

    def finish(
        self, weights: np.ndarray[Any, Any], summary: Mapping[str, Any], table: Sequence[Mapping[str, Any]]
    ) -> None:
        """Writes what is left of the run.

        Args:
            weights: the newest.
            summary: plain values.
            table: a flat row for each round, for whoever reads Parquet; written where pyarrow is installed.

        Raises:
            StorageError: it cannot be written.
        """
        self._write_weights(weights)
        write_text(self.folder / _SUMMARY, json.dumps(summary, indent=2) + "\n")
        content = parquet(table)
        if content is not None:
            write_bytes(self.folder / _TABLE, content)

    def failed(self) -> str:
        """The error that ended the run that the folder holds; empty: none did, or there is no summary yet.

        Raises:
            StorageError: the summary cannot be read, or is damaged.
        """
        return str(read_summary(self.folder).get("failed") or "")

    def clear_rows(self) -> None:
        """Deletes what is made anew at every start."""
        shutil.rmtree(self.tables, ignore_errors=True)

    def _write_weights(self, weights: np.ndarray[Any, Any]) -> None:
        buffer = io.BytesIO()
        np.save(buffer, weights)
        write_bytes(self.folder / _WEIGHTS, buffer.getvalue())

    def _tidy(self) -> None:
        """Deletes what a process left that died while it wrote a file."""
        for path in self.folder.iterdir():
            if _is_left_over(path.name):
                with contextlib.suppress(OSError):  # it is in nobody's way
                    path.unlink()

    def _hold(self) -> None:
        """Locks the folder itself, so that nothing is left of it when this process dies.

        Raises:
            InvalidSettingError: another process writes to it.
            StorageError: it cannot be opened.
        """
        try:
            descriptor = os.open(self.folder, os.O_RDONLY)
        except OSError as error:
            raise storage_error(error, "open", self.folder) from error
        until = time.monotonic() + _PATIENCE
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.EACCES):
                    break  # a file system without locks
                if time.monotonic() < until:
                    time.sleep(_LOOK)
                    continue
                os.close(descriptor)
                raise InvalidSettingError(
                    f"Another process writes to {self.folder}.", hint="Wait until it is done, or choose another folder."
                ) from None
            break
        self._lock = descriptor

    def _check_settings(self) -> None:
        path = self.folder / _SETTINGS
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(before, dict):
                raise ValueError(f"expected names and values, got {before!r:.80}")
        except (OSError, ValueError) as error:
            raise StorageError(f"{path} cannot be read, or is damaged: {error}.") from error
        if phrases := changed(before, self._settings):
            raise SettingError(
                f"{self.folder} holds a simulation with other settings: {'; '.join(phrases[:_PHRASES])}.",
                hint="Give the same settings, or choose another folder.",
            )

    def _read_rounds(self, fold: int) -> list[dict[str, Any]]:
        lines = (self.folder / _ROUNDS).read_text(encoding="utf-8").splitlines()
        rounds = []
        for number, line in enumerate(lines[:fold], 1):  # the last line may have been cut short
            row = json.loads(line)
            if not is_row(row) or row["round"] != number:
                raise ValueError(f"line {number} of {_ROUNDS} is no row of this round")
            rounds.append(row)
        if len(rounds) < fold:
            raise ValueError(f"{_ROUNDS} has {len(rounds)} of {fold} rounds")
        return rounds

    def _write_rounds(self, rounds: list[dict[str, Any]]) -> None:
        table = self.folder / _TABLE
        try:
            table.unlink(missing_ok=True)  # it is of all rounds, and there will be others
        except OSError as error:
            raise storage_error(error, "delete", table) from error
        write_text(self.folder / _ROUNDS, "".join(json.dumps(row) + "\n" for row in rounds))


def _is_left_over(name: str) -> bool:
    """Whether a file is one of the folder's own, of which a part was written."""
    return any(is_part_of(each, name) for each in (_SETTINGS, _ROUNDS, _WEIGHTS, _CHECKPOINT, _SUMMARY, _MODEL, _TABLE))


def _checkpoint(arrays: Mapping[str, Any], progress: Mapping[str, Any], initial: StrategyState) -> Checkpoint:
    """Puts together what a file says.

    Raises:
        ValueError, LookupError, TypeError, AttributeError: it is no checkpoint of this run.
    """
    state = _state("", arrays, initial)
    late = {name: (int(times), float(latest)) for name, (times, latest) in progress["late"].items()}
    counts = [progress[name] for name in ("version", "cohort", "fold", "failed_in_a_row", "accepted")]
    if not all(isinstance(count, int) and count >= 0 for count in counts):
        raise ValueError(f"expected counts, got {counts}")
    float(progress["clock"]), list(map(bytes.fromhex, progress["fetched"].split(":"))), progress["folded"].items()
    under_way = None
    if progress["under_way"] is not None:
        numbers = {int(name.split("/")[1]) for name in arrays if name.startswith(_VERSION)}
        versions = {number: _state(f"{_VERSION}{number}/", arrays, initial) for number in numbers}
        under_way = UnderWay.from_json(progress["under_way"], {**versions, progress["version"]: state})
    return Checkpoint(**{**progress, "late": late, "under_way": under_way}, state=state)


def _arrays(prefix: str, state: StrategyState) -> dict[str, Any]:
    """The vectors of a state, by names in a file."""
    slots = {f"{prefix}{_SLOT}{name}": vector for name, vector in state.slots.items()}
    return {f"{prefix}weights": state.weights, **slots}


def _state(prefix: str, arrays: Mapping[str, Any], initial: StrategyState) -> StrategyState:
    """Reads what `_arrays` made, of a model whose run began with a state.

    Raises:
        ValueError, LookupError: it is not there, or of another model.
    """
    weights, slot = arrays[f"{prefix}weights"], f"{prefix}{_SLOT}"
    if weights.shape != initial.weights.shape or weights.dtype != initial.weights.dtype:
        raise ValueError(
            f"expected weights {initial.weights.dtype} {initial.weights.shape}, got {weights.dtype} {weights.shape}"
        )
    slots = {name[len(slot) :]: array for name, array in arrays.items() if name.startswith(slot)}
    return StrategyState(weights, initial.weight_size, slots)
