"""Times steps side by side: every contender is a process of its own that works when it is told to.

The parent gives each a slice in turn, so that a machine whose speed drifts slows all of them alike. Figures are medians
over slices.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Timing", "measure", "serve"]


@dataclass(frozen=True)
class Timing:
    """What a contender took.

    Attributes:
        step_ms: median over slices of the median step, in milliseconds.
        peak_rss_mb: of its process.
    """

    step_ms: float
    peak_rss_mb: float


def serve(make_step: Callable[[], Callable[[], Any]]) -> None:
    """A contender's process: a number on a line of standard input asks for a slice of at least so many seconds."""
    sys.stdout = sys.stderr  # libraries print; the answers go to the real standard output
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    step = make_step()
    for _ in range(3):
        step()
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        times: list[float] = []
        end = time.perf_counter() + float(line)
        while time.perf_counter() < end or len(times) < 5:
            start = time.perf_counter()
            step()
            times.append(time.perf_counter() - start)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps([statistics.median(times) * 1e3, peak]), file=answers, flush=True)


def measure(
    commands: Mapping[str, Sequence[str]], *, threads: int = 1, slices: int = 5, seconds: float = 0.5
) -> dict[str, Timing]:
    """Runs contenders in turn.

    Args:
        commands: name of each to the command whose process calls `serve`.
        threads: that numeric libraries may use.
        slices: turns that each gets.
        seconds: length of a turn.
    """
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "OMP_NUM_THREADS": str(threads)}
    processes: dict[str, subprocess.Popen[str]] = {}
    try:
        for name, command in commands.items():
            pipe = subprocess.PIPE
            processes[name] = subprocess.Popen(
                command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=environment
            )
            if _ask(processes[name]) != "ready":
                raise SystemExit(f"{name} failed:\n{processes[name].communicate()[1]}")
        answers: dict[str, list[list[float]]] = {name: [] for name in commands}
        for _ in range(slices):
            for name, process in processes.items():
                answers[name].append(json.loads(_ask(process, f"{seconds}\n")))
    finally:
        for process in processes.values():
            process.kill()
            process.communicate()
    return {
        name: Timing(statistics.median(ms for ms, _ in rows), max(peak for _, peak in rows))
        for name, rows in answers.items()
    }


def _ask(process: subprocess.Popen[str], line: str = "") -> str:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(line)
    process.stdin.flush()
    return process.stdout.readline().strip()
