"""Server and devices together, as functions, against the papers in float64; not every device works in every round."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgefl.model_file import ModelFile
from edgefl.wire.messages import ExtraVector, Task
from edgefl_device_runtime.tasks import ModelTrainer, Received, perform
from edgefl_device_runtime.training import TrainableModel
from edgefl_server.aggregation import (
    Assignment,
    Believed,
    Blob,
    Cohort,
    Expectation,
    ModelLimits,
    RunSettings,
    StrategyState,
    TaskSource,
    Updates,
    decode_outcome,
    fold,
    settle,
    strategy_for,
    task_for,
    validate,
)
from federated_numpy import SIZE, LocalData, Vector, descend, feddyn, fedprox, gradient, scaffold

DEVICES, PARTICIPANTS, ROUNDS, EPOCHS = 6, 3, 4, 2
MODEL, BASE, CONTROL = "a" * 64, "b" * 64, "c" * 64
MU, SERVER_RATE = 0.3, 0.7


class Paper:
    """What the papers' pseudo-code makes of the same rows; subscripts are device numbers."""

    def __init__(self, weights: Vector) -> None:
        self.w = weights.astype(np.float64)
        self.c, self.h = np.zeros(SIZE), np.zeros(SIZE)
        self.own = [np.zeros(SIZE) for _ in range(DEVICES)]

    def fedavg(self, data: dict[int, LocalData]) -> None:
        """McMahan et al. 2017, Algorithm 1."""
        self._by_examples(data, lambda each: descend(self.w, each, lambda _, g: g)[0])

    def fedprox(self, data: dict[int, LocalData]) -> None:
        """Li et al. 2020, with McMahan's average."""
        self._by_examples(data, lambda each: fedprox(self.w, each, MU))

    def fedsgd(self, data: dict[int, LocalData]) -> None:
        """McMahan et al. 2017, section 2."""
        self._by_examples(data, lambda each: self.w - SERVER_RATE * gradient(self.w, each.x.astype(float), each.y))

    def _by_examples(self, data: dict[int, LocalData], trained: Callable[[LocalData], Vector]) -> None:
        self.w = sum(len(each.x) * trained(each) for each in data.values()) / sum(len(each.x) for each in data.values())

    def scaffold(self, data: dict[int, LocalData]) -> None:
        """Karimireddy et al. 2020, Algorithm 1, lines 16 and 17."""
        moves, changes = [], []
        for number, each in data.items():
            y, after = scaffold(self.w, self.c, self.own[number], each)
            moves.append(y - self.w)
            changes.append(after - self.own[number])
            self.own[number] = after
        self.w = self.w + SERVER_RATE * np.mean(moves, axis=0)
        self.c = self.c + len(data) / DEVICES * np.mean(changes, axis=0)

    def feddyn(self, data: dict[int, LocalData]) -> None:
        """Acar et al. 2021, Algorithm 1."""
        trained = []
        for number, each in data.items():
            theta, self.own[number] = feddyn(self.w, self.own[number], each, MU)
            trained.append(theta)
        self.h = self.h - MU / DEVICES * sum(theta - self.w for theta in trained)
        self.w = np.mean(trained, axis=0) - self.h / MU


class Federation:
    """A run whose tasks, outcomes and folds go through edgefl's functions, and messages through bytes."""

    def __init__(self, file: Path, settings: RunSettings) -> None:
        model = ModelFile.read(file)
        self.manifest, self.initial = model.manifest, model.initial_weights()
        self.settings = settle(settings, self.manifest)
        self.strategy = strategy_for(self.settings)
        self.state: StrategyState = self.strategy.init(self.initial, SIZE)
        self._trainer = ModelTrainer(TrainableModel(file))
        self._limits = ModelLimits.of(self.manifest)
        self._remembered: list[dict] = [{} for _ in range(DEVICES)]
        self._latest = [""] * DEVICES

    def round(self, number: int, rows: dict[int, tuple[np.ndarray, np.ndarray]]) -> dict[int, LocalData]:
        demand, manifest = self.strategy.demand, self.manifest
        vectors = tuple(ExtraVector(name, CONTROL) for name in demand.vectors)
        place = TaskSource(
            population="p",
            run="run",
            version=number - 1,
            cohort=number,
            fold=number,
            model=Blob(MODEL, 1),
            graph_hash=manifest.graph_hash,
            layout_hash=manifest.layout_hash,
            base=Blob(BASE, 1),
            vectors=vectors,
        )
        received = Received(self.state.weights, {name: self.state.slots[name] for name in demand.vectors})
        updates, visited = [], {}
        for device, (x, y) in rows.items():
            handed_out = Assignment(f"{device:032x}", 1, 0.0, 9e9, 9e9)
            task = Task.decode(
                task_for(place, self.settings, demand, handed_out, 1000.0, self._latest[device]).encode()
            )
            result = perform(task, self._trainer, received, {"x": x, "y": y}, self._remembered[device])
            self._remembered[device], self._latest[device] = result.remembered, task.task_id
            expected = Expectation(task.task_id, BASE, manifest.layout_hash, SIZE, 0, sections=demand.sections)
            updates.append(validate(decode_outcome(result.outcome.encode()), expected))
            visited[device] = LocalData(x, y, task.seed, EPOCHS)
        believed = Believed(self.settings.max_examples, 0, self._limits, manifest.metrics)
        contributions = Updates.of(updates).contributions
        self.state = fold(self.strategy, self.state, contributions, believed, Cohort(DEVICES)).state
        return visited


@pytest.mark.parametrize(
    ("strategy", "options"),
    [
        ("fedavg", {"epochs": EPOCHS}),
        ("fedprox", {"epochs": EPOCHS, "mu": MU}),
        ("fedsgd", {"server_learning_rate": SERVER_RATE}),
        ("scaffold", {"epochs": EPOCHS, "server_learning_rate": SERVER_RATE}),
        ("feddyn", {"epochs": EPOCHS, "mu": MU}),
    ],
)
def test_rounds_of_unlike_devices_are_those_of_the_paper_to_the_rounding_of_float32(federated_file, strategy, options):
    random = np.random.default_rng(17)
    local = []
    for _ in range(DEVICES):
        x = (random.normal(size=(random.integers(3, 40), 20)) + random.normal(size=20)).astype(np.float32)
        local.append((x, random.integers(0, 5, len(x)).astype(np.int32)))
    federation = Federation(
        federated_file, RunSettings.of(rounds=9, target=PARTICIPANTS, strategy=strategy, seed=5, **options)
    )
    paper = Paper(federation.initial)
    for number in range(1, ROUNDS + 1):
        chosen = sorted(random.choice(DEVICES, PARTICIPANTS, replace=False))
        getattr(paper, strategy)(federation.round(number, {device: local[device] for device in chosen}))
        moved = np.abs(paper.w - federation.initial).max()
        assert np.abs(federation.state.weights - paper.w).max() < 3e-6 * moved
