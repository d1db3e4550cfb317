"""Sums up what a device has done, for people and for scripts."""

from __future__ import annotations

import math
import resource
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from edgefl.wire.messages import Outcome, OutcomeStatus, Task, TaskKind

__all__ = ["Summary", "TaskReport", "amount", "kind_of", "peak_rss_mb", "work_name"]


@dataclass
class TaskReport:
    """One task as it went.

    Attributes:
        task_id: the server's name for it.
        run: the training job; empty when the task was finished by an earlier process.
        round: of the run.
        kind: see `kind_of`.
        version: of the run's weights.
        started: on the monotonic clock; 0 when an earlier process did the work.
        result: ``accepted``, ``reported`` (declined or failed), ``surplus``, ``stale``, ``abandoned``, ``refused: …``.
        status: how the outcome ended.
        loss: mean over the rows of the last epoch; None when there is none.
        examples: rows trained on.
        steps: optimizer steps.
        seconds: from receipt to the server's answer.
        bytes_up: bodies sent.
        bytes_down: bodies received.
        unusable: whether the server does not hand out what the task names.
    """

    task_id: str
    run: str = ""
    round: int = 0
    kind: str = "train"
    version: int = 0
    started: float = 0.0
    result: str = ""
    status: str = "done"
    loss: float | None = None
    examples: int = 0
    steps: int = 0
    seconds: float = 0.0
    bytes_up: int = 0
    bytes_down: int = 0
    unusable: bool = False

    def note(self, outcome: Outcome) -> None:
        """Takes over what the outcome says."""
        self.status = outcome.status.name.lower() if isinstance(outcome.status, OutcomeStatus) else "unknown"
        self.examples, self.steps = outcome.num_examples, outcome.local_steps
        states = {state.name: math.fsum(state.values) for state in outcome.metrics}
        if states.get("rows"):
            self.loss = states.get("loss_sum", math.nan) / states["rows"]

    @property
    def trouble(self) -> bool:
        """Whether it is better to wait before the next one."""
        return self.status != "done" or self.unusable or self.result.startswith("refused")

    def title(self) -> str:
        """The task's name for people."""
        if not self.run:
            return f"Task {self.task_id}"
        name = work_name(self.kind, self.round, self.version)
        return f"{name[0].upper()}{name[1:]} of {self.run}"

    def __str__(self) -> str:
        loss = "" if self.loss is None else f"loss {self.loss:#.4g}, "
        return (
            f"{self.title()}: {self.status}, {self.result}; {loss}{amount(self.examples, 'example')}, "
            f"{amount(self.steps, 'step')}, {self.seconds:.2f} s, "
            f"{self.bytes_up / 1000:.1f} kB up, {self.bytes_down / 1000:.1f} kB down"
        )


@dataclass
class Summary:
    """Adds up what a process has done since its start.

    Attributes:
        device_id: who.
        population: for whom.
        server: URL.
        tasks: tasks by result; refusals under their reason.
        examples: rows trained on, summed over the tasks.
        steps: optimizer steps.
        last_loss: of the last task that had one.
        bytes_up: bytes of all request bodies.
        bytes_down: bytes of all reply bodies.
        task_seconds: time from receipt of a task to the server's answer, summed.
    """

    device_id: str
    population: str
    server: str
    tasks: dict[str, int] = field(default_factory=dict)
    examples: int = 0
    steps: int = 0
    last_loss: float | None = None
    bytes_up: int = 0
    bytes_down: int = 0
    task_seconds: float = 0.0
    _started: float = field(default_factory=time.monotonic, repr=False)

    def add(self, report: TaskReport) -> None:
        """Counts a task."""
        self.tasks[report.result] = self.tasks.get(report.result, 0) + 1
        self.examples += report.examples
        self.steps += report.steps
        self.last_loss = report.loss if report.loss is not None else self.last_loss
        self.task_seconds += report.seconds

    @property
    def tasks_done(self) -> int:
        """Outcomes that the server accepted."""
        return self.tasks.get("accepted", 0)

    def to_json(self) -> dict[str, Any]:
        """The summary as plain values, with the time and memory that the process took until now."""
        document = {name: value for name, value in asdict(self).items() if not name.startswith("_")}
        return {
            **document,
            "tasks_done": self.tasks_done,
            "seconds": round(time.monotonic() - self._started, 3),
            "task_seconds": round(self.task_seconds, 3),
            "peak_rss_mb": peak_rss_mb(),
        }

    def __str__(self) -> str:
        others = ", ".join(f"{count} {result}" for result, count in sorted(self.tasks.items()) if result != "accepted")
        return (
            f"{amount(self.tasks_done, 'task')} done{f' ({others})' if others else ''}, "
            f"{amount(self.examples, 'example')}, "
            f"{self.bytes_up / 1000:.1f} kB up, {self.bytes_down / 1000:.1f} kB down, peak memory {peak_rss_mb()} MB"
        )


def kind_of(task: Task) -> str:
    """The kind of a task by the protocol's name, or its number."""
    return task.kind.name.lower() if isinstance(task.kind, TaskKind) else str(task.kind)


def work_name(kind: str, round: int, version: int) -> str:
    """Names a task for people; only training goes by rounds.

    Args:
        kind: see `kind_of`.
        round: of the run.
        version: of the weights that are evaluated.
    """
    return {"evaluate": f"evaluation of version {version}", "statistics": "statistics"}.get(kind, f"round {round}")


def amount(number: int, noun: str) -> str:
    """A number of things, for people."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def peak_rss_mb() -> float:
    """The most physical memory that this process has used, in MB of 2**20 bytes."""
    try:
        # getrusage also counts what the process was before exec: a child of a large parent starts with its peak.
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return round(int(line.split()[1]) / 1024, 1)
    except OSError:
        pass  # a system without /proc: what getrusage says is near enough
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)
