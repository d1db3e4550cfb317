"""Emulated devices as a coordinator meets them: they are there or not, begin tasks, and send what comes of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np

from edgefl.wire.differences import LONGEST_CHAIN
from edgefl.wire.messages import OutcomeStatus, Reason, Task
from edgefl_device_runtime.tasks import unfinished
from edgefl_server.aggregation import difference_bytes
from edgefl_simulation.cohorts import Flight
from edgefl_simulation.engines import Engine, Job, Worked
from edgefl_simulation.pace import Work
from edgefl_simulation.plans import Plan
from edgefl_simulation.under_way import OpenTask
from edgefl_simulation.versions import Version

__all__ = ["Devices"]

_ASKED_AT_ONCE = 1_000
"""Devices that ask for work in one moment, beside four for each place: a round must not cost more in a larger fleet."""
_ASKED_AGAIN = 60.0
"""Simulated seconds after which others ask, where not all could."""


class Devices:
    """The devices of a plan.

    Args:
        plan: what is simulated.
        engine: does their work.
        fetched: what of them has the model file already, and which version, as `fetched` says it.
    """

    def __init__(self, plan: Plan, engine: Engine, fetched: str) -> None:
        self._plan, self._engine = plan, engine
        self._has_model = np.zeros(len(plan.fleet), bool)
        layout = plan.manifest.layout
        self._difference = difference_bytes(plan.settings, layout.weight_size, layout.statistic_size)
        self._has_version = np.full(len(plan.fleet), -1, "<i4")
        files, _, versions = fetched.partition(":")
        if files:
            bits = np.unpackbits(np.frombuffer(bytes.fromhex(files), np.uint8))
            self._has_model[:] = bits[: len(plan.fleet)]
        if versions:
            self._has_version[:] = np.frombuffer(bytes.fromhex(versions), "<i4")

    @property
    def fetched(self) -> str:
        """The devices that have the model file: a bit each, as hexadecimal digits; where it matters, their versions."""
        if not self._has_model.any():
            return ""
        versions = f":{self._has_version.tobytes().hex()}" if self._difference else ""
        return np.packbits(self._has_model).tobytes().hex() + versions

    def asking(self, now: float) -> tuple[int, float]:
        """Says how many devices ask for work at most in one moment, and when others do; infinity: there are none."""
        count, most = len(self._plan.fleet), _ASKED_AT_ONCE + 4 * self._plan.settings.cohort_size
        return (count, math.inf) if count <= most else (most, now + _ASKED_AGAIN)

    def back(self, device: int, now: float) -> float:
        """Says when a device is there: now, or else when next; infinity: never."""
        return self._plan.pace.back(self._plan.settings.effective_seed, device, now)

    def begin(self, task: Task, device: int, name: str, version: Version, now: float) -> Flight:
        """Lets a device begin a task, and the engine what will come of it."""
        plan = self._plan
        rows = plan.fleet.rows(device)
        steps = task.epochs * math.ceil(len(rows) / (task.batch_size or plan.manifest.batch_size))
        steps = min(steps, task.max_steps) if task.max_steps else steps
        fetched = self._weights_bytes(task, device) + sum(each.bytes for each in task.extra_vectors)
        if not self._has_model[device]:
            fetched += task.model_bytes
        course = plan.pace.course(Work(plan.settings.effective_seed, task.task_id, device, now, steps, fetched))
        if course.received <= course.gone:
            self._has_model[device], self._has_version[device] = True, task.version
        return self._at(OpenTask(name, task, course, fetched), device, version)

    def resumed(self, open_tasks: Iterable[OpenTask], versions: Mapping[int, Version]) -> list[Flight]:
        """Lets devices be at tasks that they had begun from versions of the weights, by their numbers."""
        numbers = {name: device for device, name in enumerate(self._plan.fleet.names)}
        flights = [self._at(each, numbers[each.device], versions[each.task.version]) for each in open_tasks]
        for each in flights:
            each.version.users += 1
        return flights

    def _at(self, open_task: OpenTask, device: int, version: Version) -> Flight:
        task, course, attack = open_task.task, open_task.course, self._plan.attack(device)
        flight = Flight(open_task.device, task.task_id, None, version, course, open_task.bytes_down, attack is not None)
        flight.task = task
        if course.failure:
            flight.worked = _without_memory(task, course.failure)
        elif course.is_computed:
            rows = self._plan.rows(device)
            job = Job(task, version.base, rows, self._plan.minimum_examples, attack=attack)
            flight.ticket = self._engine.submit(job)
        return flight

    def _weights_bytes(self, task: Task, device: int) -> int:
        """Bytes of the weights: of the differences from those that the device has, where these are fewer."""
        missing = task.version - int(self._has_version[device])
        if not self._difference or self._has_version[device] < 0 or missing > LONGEST_CHAIN:
            return task.base_weights_bytes
        return min(task.base_weights_bytes, missing * (4 + self._difference))

    def work_of(self, flight: Flight) -> tuple[Worked, float]:
        """Waits for what comes of a task, and says when it arrives; infinity: its device is gone before.

        Raises:
            RuntimeFailure: a worker has died.
        """
        if flight.worked is None:
            assert flight.ticket is not None
            flight.worked = self._engine.result(flight.ticket)
        sent = flight.course.sent(flight.worked.bytes_up)
        return flight.worked, sent if sent <= flight.course.gone else math.inf


def _without_memory(task: Task, why: str) -> Worked:
    """The result of a task that its device has no memory for."""
    return Worked(unfinished(task, OutcomeStatus.FAILED, Reason.OUT_OF_MEMORY, "edgefl simulate"), None, why)
