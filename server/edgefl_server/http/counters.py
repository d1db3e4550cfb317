"""Counts what happens, for metrics: plain numbers, as they rise while devices wait for their answers.

All is counted in the loop that answers requests, so that nothing needs a lock.
"""

from __future__ import annotations

import bisect
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from edgefl.wire.refusals import Refusal
from edgefl_server.aggregation import run_of_task

__all__ = ["Counters", "Histogram"]

_BOUNDS = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
_OUTCOMES = ("done", "declined", "failed")
_REFUSED = (
    *(Refusal.SURPLUS, Refusal.STALE, Refusal.WRONG_PROTOCOL, Refusal.WRONG_TASK, Refusal.WRONG_BASE_WEIGHTS),
    *(Refusal.WRONG_LAYOUT, Refusal.UNKNOWN_CODEC, Refusal.WRONG_CODEC, Refusal.WRONG_DIGEST, Refusal.WRONG_LENGTH),
    *(Refusal.NOT_FINITE, Refusal.NORM_EXCEEDED, Refusal.BAD_NUM_EXAMPLES, Refusal.BAD_METRICS),
    Refusal.CONFLICTING_OUTCOME,
)
"""Those that an outcome meets: each is there from the start, as 0, so that its first is seen to be one more."""


class Histogram:
    """Histogram in seconds, counted by how long they are."""

    def __init__(self) -> None:
        self._counts = [0] * (len(_BOUNDS) + 1)
        self.total = 0.0

    def note(self, seconds: float) -> None:
        """One more."""
        self._counts[bisect.bisect_left(_BOUNDS, seconds)] += 1
        self.total += seconds

    def buckets(self) -> list[tuple[str, int]]:
        """The number of those that took at most so long, for each bound, in the manner of Prometheus."""
        found, count = [], 0
        for bound, more in zip((*map(str, _BOUNDS), "+Inf"), self._counts, strict=True):
            count += more
            found.append((bound, count))
        return found


@dataclass
class Counters:
    """Everything that is counted since the process started.

    Attributes:
        tasks: answers that held a task.
        outcomes: accepted ones, by how they ended.
        refused: outcomes that were not taken, by the code of the refusal.
        refused_of_runs: the same for each run, from which a device had the task.
        upload_bytes: of accepted outcomes, by the codec of their update; ``none``: they held none.
        download_bytes: of models and weights that devices fetched.
        folds: how long each took.
        folds_put_off: attempts to fold that were not possible.
    """

    tasks: int = 0
    outcomes: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(_OUTCOMES, 0)))
    refused: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(map(str, _REFUSED), 0)))
    refused_of_runs: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    upload_bytes: Counter[str] = field(default_factory=Counter)
    download_bytes: int = 0
    folds: Histogram = field(default_factory=Histogram)
    folds_put_off: int = 0

    def refuse(self, task_id: str, code: str) -> None:
        """An outcome was not taken, of a task that its sender has or had."""
        self.refused[code] += 1
        self.refused_of_runs[run_of_task(task_id)][code] += 1

    def accepted(self, status: str, codec: str, size: int) -> None:
        """An outcome was accepted; empty status: it had been before."""
        if status:
            self.outcomes[status] += 1
            self.upload_bytes[codec] += size
