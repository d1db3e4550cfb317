"""Times steps side by side: every contender is a process of its own that works when it is told to.

The parent gives each a slice in turn, so that a machine whose speed drifts slows all of them alike. Figures are medians
over slices. A contender's process calls `serving.serve`.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["ContenderError", "Start", "Timing", "measure", "start"]


class ContenderError(Exception):
    """A contender's process ended; the message is the end of what it wrote."""


@dataclass(frozen=True)
class Start:
    """How a process that nobody else's work disturbed came to its first steps.

    Attributes:
        seconds: from the start of the process to the end of the first step.
        losses: of the first four steps, where steps return them.
        pss_mb: after these steps; of pages that n processes of the machine share, an n-th.
    """

    seconds: float
    losses: list[float | None]
    pss_mb: float


@dataclass(frozen=True)
class Timing:
    """What a contender took.

    Attributes:
        step_ms: median over slices of the median step, in milliseconds.
        peak_rss_mb: of its process.
        anonymous_mb: of its process between steps, what is no page of a file.
    """

    step_ms: float
    peak_rss_mb: float
    anonymous_mb: float


class _Contender:
    """A process that answers; what it writes elsewhere goes to a file, so that it never waits for a reader."""

    def __init__(self, command: Sequence[str], threads: int, cwd: Path | None):
        self._errors = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115 (`stop` closes it)
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "OMP_NUM_THREADS": str(threads)}
        self._begin = time.monotonic()
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=environment,
            cwd=cwd,
        )
        try:
            started = self.ask()
        except ContenderError:
            self.stop()
            raise
        self.start = Start(started["first_step_at"] - self._begin, started["losses"], started["pss_mb"])

    def ask(self, line: str = "") -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(line)
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it ended, and says why below
        answer = self._process.stdout.readline()
        if not answer:
            code = self._process.wait()
            self._errors.seek(0)
            raise ContenderError(f"{self._errors.read()[-2000:].strip()}\nexit code {code}")
        return json.loads(answer)

    def stop(self) -> None:
        self._process.kill()
        self._process.communicate()
        self._errors.close()


def start(command: Sequence[str], *, threads: int = 1, cwd: Path | None = None) -> Start:
    """Starts a contender alone, and ends it after its first steps.

    Raises:
        ContenderError: if it ends before.
    """
    contender = _Contender(command, threads, cwd)
    contender.stop()
    return contender.start


def measure(
    commands: Mapping[str, Sequence[str]],
    *,
    threads: int = 1,
    slices: int = 5,
    seconds: float = 0.5,
    cwd: Path | None = None,
) -> dict[str, Timing]:
    """Runs contenders in turn.

    Args:
        commands: name of each to the command whose process calls `serve`.
        threads: that numeric libraries may use.
        slices: turns that each gets.
        seconds: length of a turn.
        cwd: the folder in which they run.

    Raises:
        ContenderError: if one ends.
    """
    contenders: dict[str, _Contender] = {}
    try:
        for name, command in commands.items():
            contenders[name] = _Contender(command, threads, cwd)
        answers: dict[str, list[dict[str, float]]] = {name: [] for name in commands}
        for _ in range(slices):
            for name, contender in contenders.items():
                answers[name].append(contender.ask(f"{seconds}\n"))
    finally:
        for contender in contenders.values():
            contender.stop()
    return {
        name: Timing(
            statistics.median(each["step_ms"] for each in rows),
            max(each["peak_rss_mb"] for each in rows),
            max(each["anonymous_mb"] for each in rows),
        )
        for name, rows in answers.items()
    }
