"""Runs rows and networks by their names, in processes of their own."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import time
from collections.abc import Iterator, Sequence
from typing import Any

from keras_coverage.architectures import ARCHITECTURES
from keras_coverage.families import ROWS
from keras_coverage.measuring import measure, measure_architecture
from keras_coverage.public import public

__all__ = ["NETWORKS", "run", "run_all"]

NETWORKS = "architectures"
Task = tuple[str, str]
Result = tuple[Any, str, float]

_PROCESSES = 2
_ROWS_OF_A_PROCESS = 20
"""TensorFlow keeps the graphs of a process, of a large network a few gigabytes: each of those gets its own process."""


def run_all(tasks: Sequence[Task]) -> Iterator[tuple[Task, Result]]:
    """Runs rows and networks side by side; yields each share of a process as it is done."""
    shares = [[task] for task in tasks if task[0] == NETWORKS]
    rows = [task for task in tasks if task[0] != NETWORKS]
    shares += [rows[start : start + _ROWS_OF_A_PROCESS] for start in range(0, len(rows), _ROWS_OF_A_PROCESS)]
    with concurrent.futures.ThreadPoolExecutor(_PROCESSES) as pool:
        running = {pool.submit(_in_a_process, share): share for share in shares}
        for done in concurrent.futures.as_completed(running):
            yield from zip(running[done], done.result(), strict=True)


def _in_a_process(share: Sequence[Task]) -> list[Result]:
    # Not by max_tasks_per_child of one pool, which can hang before Python 3.11.9.
    with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return list(process.map(run, *zip(*share)))


def run(section: str, name: str) -> Result:
    """Runs one row or network; returns what came out, what was wrong, and the seconds that it took."""
    start = time.monotonic()
    try:
        if section == NETWORKS:
            outcome: Any = measure_architecture(next(each for each in ARCHITECTURES if each.name == name))
        else:
            outcome = measure(ROWS[next(api for api in public(section) if api.__name__ == name)], section)
    except Exception as error:
        return None, f"{type(error).__name__}: {str(error)[:1000]}", time.monotonic() - start
    return outcome, "", time.monotonic() - start
