"""The job that every contender does, and what is measured."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Job", "Watch", "read_job", "watched"]

_PAUSE = 0.1
"""Seconds between two looks at the memory of all processes."""


@dataclass(frozen=True)
class Job:
    """McMahan's 2NN on Fashion-MNIST: 100 devices of 600 images, 10 a round, one epoch of batches of 10.

    Attributes:
        model: the model file.
        data: a folder with ``.npy`` files: ``x``, ``y`` and ``id`` of all rows, and ``test_x``, ``test_y``.
        rounds: of which the first is not timed.
        cohort: devices of a round.
        workers: processes that train.
        seed: of what is drawn.
    """

    model: str
    data: str
    rounds: int
    cohort: int
    workers: int
    seed: int


def read_job() -> Job:
    """The job on standard input."""
    return Job(**json.load(sys.stdin))


@dataclass
class Watch:
    """Time, processor time and memory of this process and all below it, round after round.

    Attributes:
        rounds: when each was over, the processor time until then, and how many devices trained in it.
        peak_pss_mb: the most memory, also while data is prepared.
        training_pss_mb: the most memory after the first round.
    """

    rounds: list[tuple[float, float, int]] = field(default_factory=list)
    peak_pss_mb: float = 0.0
    training_pss_mb: float = 0.0

    def round(self, devices: int) -> None:
        """Notes that a round is over."""
        self.rounds.append((time.perf_counter(), _tree_cpu(), devices))

    def look(self) -> None:
        """Looks at the memory."""
        memory = sum(map(_pss, _tree())) / 1e6
        self.peak_pss_mb = max(self.peak_pss_mb, memory)
        if self.rounds:
            self.training_pss_mb = max(self.training_pss_mb, memory)

    def finish(self, accuracy: float) -> None:
        """Prints what came out of all rounds but the first, in which processes start, and the last one."""
        (began, cpu_began, _), *timed = self.rounds[:-1]
        devices = sum(count for _, _, count in timed)
        over, cpu_over, _ = timed[-1]
        figures = {
            "devices_per_second": devices / (over - began),
            "cpu_ms_a_device": 1000 * (cpu_over - cpu_began) / devices,
            "training_pss_mb": self.training_pss_mb,
            "peak_pss_mb": self.peak_pss_mb,
            "accuracy": accuracy,
        }
        print(json.dumps(figures))


@contextmanager
def watched() -> Iterator[Watch]:
    """Looks at the memory ten times a second."""
    watch, over = Watch(), threading.Event()

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
    """This process and its descendants."""
    parents: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError, ValueError):  # it has ended
                parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    tree = {os.getpid()}
    while more := {child for child, parent in parents.items() if parent in tree} - tree:
        tree |= more
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
