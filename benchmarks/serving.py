"""A contender's process: what `interleaving` starts. It imports little, as the start of the process is timed."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

__all__ = ["serve"]

STEPS = 4
"""Whose losses are told: the first, and the one after three updates."""


def serve(make_step: Callable[[], Callable[[], Any]]) -> None:
    """Answers on standard output, a line of JSON each: first how it started, then a slice for every line of input.

    Args:
        make_step: makes what is timed; a step returns its loss, or anything where losses are not compared.
    """
    answers = os.fdopen(os.dup(1), "w")
    sys.stdout = sys.stderr  # libraries print; the answers go to the real standard output
    os.dup2(2, 1)
    step = make_step()
    returned = [step()]
    first = time.monotonic()
    returned += [step() for _ in range(STEPS - 1)]
    losses = [float(each) if isinstance(each, float) else None for each in returned]
    started = {"first_step_at": first, "losses": losses, "peak_rss_mb": peak_rss_mb(), "pss_mb": pss_mb()}
    print(json.dumps(started), file=answers, flush=True)
    for line in sys.stdin:
        times: list[float] = []
        end = time.perf_counter() + float(line)
        while time.perf_counter() < end or len(times) < 5:
            start = time.perf_counter()
            step()
            times.append(time.perf_counter() - start)
        times.sort()
        answer = {
            "step_ms": times[len(times) // 2] * 1e3,
            "peak_rss_mb": peak_rss_mb(),
            "anonymous_mb": anonymous_mb(),
        }
        print(json.dumps(answer), file=answers, flush=True)


def peak_rss_mb() -> float:
    """Of this program: getrusage would count what the process was before it, a copy of its parent."""
    return _kilobytes("/proc/self/status", "VmHWM:") / 1024


def anonymous_mb() -> float:
    """What this process has now that is no page of a file."""
    return _kilobytes("/proc/self/status", "RssAnon:") / 1024


def pss_mb() -> float:
    """What this process has now; of pages that n processes have, an n-th."""
    return _kilobytes("/proc/self/smaps_rollup", "Pss:") / 1024


def _kilobytes(file: str, key: str) -> int:
    with open(file) as lines:  # noqa: PTH123 (pathlib would be an import)
        return next(int(line.split()[1]) for line in lines if line.startswith(key))
