"""The protocol of engines: vectors are published, jobs are submitted, and each leaves something."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgefl.wire.messages import Outcome, Task
from edgefl_server.aggregation import Expectation, Update
from edgefl_simulation.attacks import Attack
from edgefl_simulation.tables import Rows

__all__ = ["WEIGHTS", "Engine", "Job", "Setup", "Tuning", "Vectors", "Worked"]

WEIGHTS = "weights"
"""The name of the base weights among published vectors; the others have the names of a strategy's slots."""

Vectors = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Tuning:
    """Training that comes before a job's own task, which starts from what it leaves; nothing else is kept of it.

    Attributes:
        task: of kind ``TRAIN``, from the same weights.
        rows: that it trains on.
    """

    task: Task
    rows: Rows


@dataclass(frozen=True)
class Job:
    """One task of one device, as an engine does it.

    Attributes:
        task: what a server would have sent.
        base: the number of the published vectors that it starts from.
        rows: the device's.
        minimum_examples: a task with fewer is declined.
        tuning: what the device trains before; None: nothing.
        attack: the device does not do what it should; None: it does.
    """

    task: Task
    base: int
    rows: Rows
    minimum_examples: int
    tuning: Tuning | None = None
    attack: Attack | None = None


@dataclass(frozen=True)
class Worked:
    """The result of a job.

    Attributes:
        outcome: what the device says, without the vectors.
        update: what a server would accept of it, with vectors that are valid until they are released; None where the
            device declined or failed.
        error: why it declined or failed; empty otherwise.
        bytes_up: of all vectors as the device sends them.
    """

    outcome: Outcome
    update: Update | None = None
    error: str = ""
    bytes_up: int = 0


@dataclass(frozen=True)
class Setup:
    """The part that all jobs of an engine have in common.

    Attributes:
        model: the model file.
        tables: the folder with the tables of rows.
        memories: the folder for what devices remember of the run.
        expected: what an outcome has to fit, but for the task's own names.
        runtime: the interpreter, as `TrainableModel` takes it.
    """

    model: Path
    tables: Path
    memories: Path
    expected: Expectation
    runtime: str = "auto"


class Engine(Protocol):
    """Does jobs. What comes of one depends on nothing but the job and what it starts from."""

    def publish(self, vectors: Vectors) -> int:
        """Makes weights, and what else tasks name, something to start from; its number."""
        ...

    def retire(self, base: int) -> None:
        """Says that no further job starts from these vectors, and that none is open."""
        ...

    def submit(self, job: Job) -> int:
        """Takes a job; its ticket. Jobs that were submitted first are begun first."""
        ...

    def result(self, ticket: int) -> Worked:
        """Waits for what is left of a job.

        Raises:
            RuntimeFailure: a worker has died.
        """
        ...

    def release(self, ticket: int) -> None:
        """Says that a job, or what is left of it, is not needed any more."""
        ...

    def close(self) -> None:
        """Ends whatever was started."""
        ...
