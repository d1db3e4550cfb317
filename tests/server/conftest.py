"""A state folder with a population, devices and a run, without any HTTP."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from edgefl.algorithms import ALGORITHMS
from edgefl.wire.messages import Outcome, OutcomeStatus, Reason, Task
from edgefl_server.aggregation import RunSettings
from edgefl_server.storage import (
    DeviceRow,
    ServerState,
    accept_outcome,
    authenticate,
    create_run,
    enrol,
    fold_pending,
    invite,
    next_task,
)
from fake_device import Identity, outcome_for
from model_files import default_parameters, make_model_file


@dataclass
class Clock:
    """A clock that stands until a test moves it."""

    now: float = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Fleet:
    """A server's state and what a test does with it."""

    state: ServerState
    clock: Clock
    token: str
    devices: list[DeviceRow] = field(default_factory=list)

    def add_devices(self, count: int) -> list[DeviceRow]:
        for index in range(len(self.devices), len(self.devices) + count):
            identity = Identity.number(index)
            enrol(self.state, self.token, identity.device, identity.secret_hash, "people", {})
            self.devices.append(authenticate(self.state, identity.device, identity.secret))
        return self.devices

    def create_run(self, **settings: object) -> str:
        values = {"rounds": 3, "target": 2, "seed": 7, **settings}
        statistics = values.get("strategy") != "fedsgd"
        model = make_model_file(default_parameters(statistics), algorithms=ALGORITHMS)
        return create_run(self.state, model, "people", RunSettings.of(**values))

    def outcome(self, task: Task) -> Outcome:
        weights = np.frombuffer(self.state.weights.get(task.base_weights_hash), "<f4")
        return outcome_for(task, weights, statistic_size=weights.size - 16)

    def finish(self, device: DeviceRow) -> Task:
        """The device gets its task and sends a good outcome."""
        task = self.task(device)
        self.accept(device, self.outcome(task))
        return task

    def give_up(self, device: DeviceRow, reason: Reason, status: OutcomeStatus = OutcomeStatus.DECLINED) -> Task:
        task = self.task(device)
        self.accept(
            device, Outcome(task.task_id, task.base_weights_hash, task.layout_hash, status=status, reason=reason)
        )
        return task

    def task(self, device: DeviceRow) -> Task:
        task = next_task(self.state, device)
        assert task is not None
        return task

    def accept(self, device: DeviceRow, outcome: Outcome) -> None:
        accept_outcome(self.state, device.device, outcome.task_id, outcome.encode())

    def fold(self) -> bool:
        return fold_pending(self.state)


@pytest.fixture
def kind_of_database() -> str:
    """Where rows are kept; modules whose tests are to hold with both override it."""
    return os.environ.get("EDGEFL_TESTS_ON", "sqlite")


@pytest.fixture
def make_fleet(
    tmp_path: Path, kind_of_database: str, request: pytest.FixtureRequest
) -> Iterator[Callable[[str], Fleet]]:
    """Makes state folders by name; the same name again, after closing, is a restart."""
    states = []
    urls = dict[str, str]()

    def make(name: str = "state", clock: Clock | None = None) -> Fleet:
        clock, url = clock or Clock(), None
        if kind_of_database == "postgresql":
            url = urls.get(name) or urls.setdefault(name, request.getfixturevalue("postgresql").make())
        state = ServerState(tmp_path / name, clock, clock, database=url)
        states.append(state)
        return Fleet(state, clock, invite(state, "people"))

    yield make
    for state in states:
        state.close()
    for url in urls.values():
        request.getfixturevalue("postgresql").give_back(url)


@pytest.fixture
def fleet(make_fleet: Callable[..., Fleet]) -> Fleet:
    return make_fleet()
