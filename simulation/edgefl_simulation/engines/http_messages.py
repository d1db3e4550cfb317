"""Messages between the http engine and the processes that its devices are in: all of it is our own, hence pickled."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgefl_simulation.tables import Rows

__all__ = ["Answer", "Ask", "Begin", "Broken", "Ready"]


@dataclass(frozen=True)
class Begin:
    """The first message to a process: what all devices have in common.

    Attributes:
        server: its URL.
        population: that they join.
        token: with which they do.
        states: the folder with a state folder for each, by id.
        tables: the folder with the tables of rows.
        minimum_examples: a device with fewer takes no part.
        runtime: the interpreter, as `TrainableModel` takes it.
        instance: of all processes, as each device may be in any of them; see `Settings`.
    """

    server: str
    population: str
    token: str
    states: Path
    tables: Path
    minimum_examples: int
    runtime: str
    instance: str


@dataclass(frozen=True)
class Ready:
    """The first message from a process."""


@dataclass(frozen=True)
class Ask:
    """A device is to ask for work once, and to do it.

    Attributes:
        device: its id.
        rows: that it has.
        wait: seconds for which the server may let it wait for work.
    """

    device: str
    rows: Rows
    wait: float = 0.0


@dataclass(frozen=True)
class Answer:
    """The end of that.

    Attributes:
        device: its id.
        task_id: of the task; empty: there was none.
        result: ``accepted``, ``reported``, ``surplus``, …, as `edgefl.Device` says it.
        status: ``done``, ``declined`` or ``failed``.
        error: why it was not done; empty where it was.
    """

    device: str
    task_id: str = ""
    result: str = ""
    status: str = ""
    error: str = ""


@dataclass(frozen=True)
class Broken:
    """The reason for which a process cannot go on."""

    error: Exception
