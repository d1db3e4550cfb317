"""The job that all contenders do, and what is measured. It imports numpy only: the process of each reads it."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

__all__ = [
    "BATCH",
    "COHORT",
    "DEVICES",
    "EVALUATED",
    "LEARNING_RATE",
    "Job",
    "Watch",
    "job_from_environment",
    "read_job",
    "watch_program",
    "watched",
]

DEVICES, COHORT, BATCH, LEARNING_RATE = 100, 10, 10, 0.05
EVALUATED = 5
"""The rounds after which accuracies are compared."""
_PAUSE = 1.0
"""Seconds between two looks at the memory of all processes."""
_VARIABLE = "EDGEFL_BENCHMARK_JOB"


@dataclass(frozen=True)
class Job:
    """Fashion-MNIST on 100 devices of 600 images, 10 a round, one epoch of batches of 10 by plain SGD.

    Attributes:
        model: ``2nn`` or ``fedavg_cnn``, both of McMahan et al. 2017.
        folder: with ``model.tflite``, the weights that all begin with as ``weights.npz``, in Keras's order, and
            ``data``: ``x``, ``y`` and ``id`` of all rows, and ``test_x``, ``test_y``.
        rounds: more than `EVALUATED`; the first one is not timed.
        workers: processes that train, where a contender has such.
        seed: of what is drawn.
    """

    model: str
    folder: str
    rounds: int
    workers: int
    seed: int

    @property
    def file(self) -> Path:
        """The path of edgefl's model file."""
        return Path(self.folder) / "model.tflite"

    @property
    def data(self) -> Path:
        """The folder of the rows."""
        return Path(self.folder) / "data"

    def rows(self) -> list[tuple[Any, Any]]:
        """The rows of each device: images and classes, in memory once."""
        x, y, owners = (np.load(self.data / f"{name}.npy") for name in ("x", "y", "id"))
        order = np.argsort(owners, kind="stable")
        x, y = x[order], y[order]
        starts = np.flatnonzero(owners[order][1:] != owners[order][:-1]) + 1
        return list(zip(np.split(x, starts), np.split(y, starts), strict=True))

    def device_rows(self, device: int) -> tuple[Any, Any]:
        """The rows of one device, read from mapped files."""
        owners = np.load(self.data / "id.npy")
        own = np.flatnonzero(owners == f"device-{device:03d}")
        x, y = (np.load(self.data / f"{name}.npy", mmap_mode="r") for name in "xy")
        return x[own], y[own]

    def tests(self) -> tuple[Any, Any]:
        """The rows that no device has."""
        return np.load(self.data / "test_x.npy"), np.load(self.data / "test_y.npy")

    def weights(self) -> list[Any]:
        """The weights that all begin with, in Keras's order."""
        with np.load(Path(self.folder) / "weights.npz") as stored:
            return [stored[key] for key in stored.files]

    def to_environment(self) -> dict[str, str]:
        """This process's environment with the job, for whoever is not this process's child."""
        return {**os.environ, _VARIABLE: json.dumps(asdict(self))}


def read_job() -> Job:
    """The job on standard input."""
    return Job(**json.load(sys.stdin))


def job_from_environment() -> Job:
    """The job as `Job.to_environment` left it."""
    return Job(**json.loads(os.environ[_VARIABLE]))


@dataclass
class Watch:
    """Time, processor time and memory of this process and all below it, round after round.

    Attributes:
        rounds: when each was over, the processor time until then, and how many devices trained in it.
        accuracy: on the rows that no device has, after `EVALUATED` rounds.
        peak_pss_mb: the most memory, also while data is prepared.
        training_pss_mb: the most memory after the first round.
        without: a process whose own memory does not count, as it only watches; 0: all count.
    """

    rounds: list[tuple[float, float, int]] = field(default_factory=list)
    accuracy: float = math.nan
    peak_pss_mb: float = 0.0
    training_pss_mb: float = 0.0
    without: int = 0

    def round(self, devices: int) -> None:
        """Notes that a round is over."""
        self.rounds.append((time.perf_counter(), _tree_cpu(), devices))

    def look(self) -> None:
        """Looks at the memory."""
        memory = sum(map(_pss, _tree() - {self.without})) / 1e6
        self.peak_pss_mb = max(self.peak_pss_mb, memory)
        if self.rounds:
            self.training_pss_mb = max(self.training_pss_mb, memory)

    def figures(self) -> dict[str, float]:
        """Says what came out of all rounds but the first, in which processes start.

        It is that of the round that took the median time: a mean would tell of the one that is followed by an
        evaluation, and of what else the machine does.
        """
        pairs = list(itertools.pairwise(self.rounds))
        seconds = statistics.median((after[0] - before[0]) / after[2] for before, after in pairs)
        cpu = statistics.median((after[1] - before[1]) / after[2] for before, after in pairs)
        return {
            "devices_per_second": 1 / seconds,
            "cpu_ms_a_device": 1000 * cpu,
            "training_pss_mb": self.training_pss_mb,
            "peak_pss_mb": self.peak_pss_mb,
            "accuracy": self.accuracy,
        }

    def finish(self) -> None:
        """Prints the figures."""
        print(json.dumps(self.figures()), flush=True)


def watch_program(command: list[str], job: Job) -> None:
    """Watches a program that gets the job by its environment and says ``round`` and ``accuracy NUMBER`` in lines."""
    with watched(without=os.getpid()) as watch:
        environment = job.to_environment()
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
            assert process.stdout is not None
            for line in process.stdout:
                match line.split():
                    case ["round"]:
                        watch.round(COHORT)
                    case ["accuracy", number]:
                        watch.accuracy = float(number)
    if process.returncode:
        raise SystemExit(f"It ended with {process.returncode}.")
    watch.finish()


@contextmanager
def watched(without: int = 0) -> Iterator[Watch]:
    """Looks at the memory every second."""
    watch, over = Watch(without=without), threading.Event()

    def look() -> None:
        while not over.wait(_PAUSE):
            watch.look()

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        over.set()
        thread.join()


def _tree() -> set[int]:
    """This process and its descendants, without a look at all others, which would take longer than a short round."""
    tree, coming = set(), [os.getpid()]
    while coming:
        process = coming.pop()
        tree.add(process)
        with contextlib.suppress(OSError):  # it has ended
            for thread in Path(f"/proc/{process}/task").iterdir():
                with contextlib.suppress(OSError):  # the thread has ended
                    coming += [int(each) for each in (thread / "children").read_text().split()]
    return tree


def _tree_cpu() -> float:
    """Processor seconds of all of them so far."""
    ticks = 0
    for process in _tree():
        with contextlib.suppress(OSError):  # it has ended
            cells = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
            ticks += int(cells[11]) + int(cells[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def _pss(process: int) -> int:
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))
