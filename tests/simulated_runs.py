"""Runs in simulated time whose devices compute nothing: an engine that moves weights by their numbers."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field, replace

import numpy as np

from edgefl.wire.messages import Outcome, OutcomeStatus, Reason
from edgefl_server.aggregation import Blob, RunSettings, StrategyState, Update
from edgefl_simulation.coordinator import Coordinator
from edgefl_simulation.engines import Worked
from edgefl_simulation.fleet import Fleet, device_names
from edgefl_simulation.pace import Course
from edgefl_simulation.plans import Checkpoint, Plan
from quadratic_trainer import quadratic_manifest

MANIFEST = quadratic_manifest(algorithms=False)
START = StrategyState(np.zeros(4, np.float32), 4)


@dataclass
class FakeEngine:
    """Moves the weights by what a device's number says, at once."""

    refuse: dict[str, Reason] = field(default_factory=dict)
    bases: dict[int, np.ndarray] = field(default_factory=dict)
    jobs: dict[int, object] = field(default_factory=dict)
    tasks: list = field(default_factory=list)
    seen: list = field(default_factory=list)
    done: int = 0
    bytes_up: int = 16
    numbers: itertools.count = field(default_factory=itertools.count)

    def publish(self, vectors):
        base = next(self.numbers)
        self.bases[base] = vectors["weights"].copy()
        return base

    def retire(self, base):
        del self.bases[base]

    def submit(self, job):
        ticket = next(self.numbers)
        self.jobs[ticket] = job
        self.tasks.append(job.task)
        self.seen.append(job)
        assert job.base in self.bases
        return ticket

    def result(self, ticket):
        task = self.jobs[ticket].task
        self.done += 1
        device = task.task_id.split("-")[3]
        named = {"task_id": task.task_id, "base_weights_hash": task.base_weights_hash, "layout_hash": task.layout_hash}
        if reason := self.refuse.get(device):
            return Worked(Outcome(status=OutcomeStatus.DECLINED, reason=reason, **named), None, f"{reason.name}")
        delta = np.full(4, 1 + int(device), np.float32)
        outcome = Outcome(num_examples=8, **named)
        return Worked(outcome, Update(task.task_id, 8, {"delta": delta}), bytes_up=self.bytes_up)

    def release(self, ticket):
        del self.jobs[ticket]


@dataclass(frozen=True)
class ByNumber:
    """Device n takes n + `first` seconds, some for ever."""

    silent: tuple[int, ...] = ()
    times: float = 1.0
    first: float = 1.0

    def back(self, seed, device, now):
        return now

    def course(self, work):
        gone = work.now if work.device in self.silent else math.inf
        return Course(work.now, work.now, work.now + self.times * (work.device + self.first), gone=gone)


def coordinator(engine, devices=6, pace=None, checkpoint=None, attack=None, manifest=MANIFEST, **settings):
    given = RunSettings.of(**{"rounds": 3, "target": 3, "seed": 7, **settings})
    fleet = Fleet(device_names(devices), np.arange(devices + 1) * 8, np.zeros(devices, np.int64))
    plan = Plan(manifest, Blob("a" * 64, 1), given, fleet, pace or ByNumber())
    plan = plan if attack is None else replace(plan, attack=attack)
    return Coordinator(plan, engine, checkpoint or Checkpoint(START))


def device_of(task):
    return int(task.task_id.split("-")[3])
