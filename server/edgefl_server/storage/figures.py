"""Figures of the whole server, for metrics and pages: runs, rounds and devices as counts, and bytes on the disk."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from edgefl_server.aggregation import FoldState, finalise
from edgefl_server.storage.runs import metrics_of, readable_runs
from edgefl_server.storage.sessions import Session
from edgefl_server.storage.state import ServerState
from edgefl_server.storage.tables import CohortRow, FoldRow, PopulationRow, RunRow, RunState

__all__ = ["Figures", "OpenRun", "bytes_on_disk", "free_bytes", "server_figures"]

_ENDED = (FoldState.DONE.value, FoldState.FAILED.value)
_STATES = (RunState.ACTIVE, RunState.PAUSED, RunState.DONE, RunState.FAILED, RunState.STOPPED)
_FOLDERS = ("models", "weights", "differences", "data", "outcomes", "uploads", "orphans")


@dataclass(frozen=True)
class OpenRun:
    """A run that is not over.

    Attributes:
        run: its id.
        name: empty where it has none.
        state: active or paused.
        accepted: outcomes with an update that were accepted.
        population: whose devices work for it.
        round: the one under way.
        rounds: how many there will be.
        tasks_open: tasks that devices have now.
        loss: of the latest round that is done, as devices had it in training; None: there is none yet.
    """

    run: str
    name: str
    state: str
    accepted: int
    population: str
    round: int
    rounds: int
    tasks_open: int
    loss: float | None


@dataclass(frozen=True)
class Figures:
    """Counts over all runs; those that evaluate the weights of another one are left out.

    Attributes:
        runs: by state.
        rounds: that are over, by state: done, failed.
        devices: that are enrolled, by population.
        open_runs: those that are not over.
    """

    runs: Mapping[str, int]
    rounds: Mapping[str, int]
    devices: Mapping[str, int]
    open_runs: tuple[OpenRun, ...]


def server_figures(state: ServerState) -> Figures:
    """Reads the figures; a few rows of each run, whatever the number of devices.

    Raises:
        StorageError: the database cannot be read.
    """
    with state.database.read() as session:
        runs = session.execute(
            select(RunRow.state, func.count()).where(RunRow.evaluates == "").group_by(RunRow.state)
        ).all()
        rounds = session.execute(
            select(FoldRow.state, func.count())
            .join(RunRow, RunRow.run == FoldRow.run)
            .where(FoldRow.state.in_(_ENDED), RunRow.evaluates == "")
            .group_by(FoldRow.state)
        ).all()
        devices = session.execute(select(PopulationRow.population, PopulationRow.devices)).all()
        going_on = RunRow.state.in_(RunState.GOING_ON)
        found = readable_runs(state, session, (RunRow.evaluates == "") & going_on)
        shown = [_open_run(session, run) for _, run in found if run is not None]
    return Figures(
        {**dict.fromkeys(_STATES, 0), **_counts(runs)},
        {**dict.fromkeys(_ENDED, 0), **_counts(rounds)},
        _counts(devices),
        tuple(each for each in shown if each is not None),
    )


def _counts(rows: Iterable[Any]) -> dict[str, int]:
    return {str(name): int(count) for name, count in rows}


def _open_run(session: Session, run: RunRow) -> OpenRun | None:
    """None: its settings cannot be read, which whoever lists the runs is told."""
    if not isinstance(run.settings, dict) or not isinstance(run.settings.get("rounds"), int):
        return None
    sums = session.scalar(
        select(FoldRow.metric_sums)
        .where(FoldRow.run == run.run, FoldRow.state == FoldState.DONE.value)
        .order_by(FoldRow.number.desc())
        .limit(1)
    )
    tasks = session.scalar(select(CohortRow.open).where(CohortRow.run == run.run, CohortRow.number == run.cohort))
    return OpenRun(
        run.run,
        run.name,
        run.state,
        run.accepted,
        run.population,
        run.fold,
        run.settings["rounds"],
        int(tasks or 0),
        finalise(sums, metrics_of(run)).get("loss") if sums else None,
    )


def free_bytes(state: ServerState) -> int:
    """The space that is left on the disk of the state folder.

    Raises:
        OSError: it is not there any more.
    """
    return shutil.disk_usage(state.folder).free


def bytes_on_disk(state: ServerState) -> dict[str, int]:
    """The sizes of the database, where it lies in the state folder, and of each folder that files of runs lie in.

    Looks at every file.
    """
    sizes = {name: _below(state.folder / name) for name in _FOLDERS}
    if database := sum(_size(state.folder / f"server.sqlite{end}") for end in ("", "-wal", "-shm")):
        sizes = {"database": database, **sizes}
    return sizes


def _below(folder: Path) -> int:
    total = 0
    for path, _, files in os.walk(folder):
        total += sum(_size(Path(path) / name) for name in files)
    return total


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:  # it went meanwhile
        return 0
