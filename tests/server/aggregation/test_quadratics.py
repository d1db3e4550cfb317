"""Devices with quadratic losses, whose common optimum is known: who reaches it, and who provably does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from edgefl_server.aggregation import Cohort, Strategy, StrategyState, Update, Updates
from edgefl_server.aggregation.strategies.fedavg import FedAvg
from edgefl_server.aggregation.strategies.feddyn import FedDyn
from edgefl_server.aggregation.strategies.fednova import FedNova
from edgefl_server.aggregation.strategies.scaffold import Scaffold

SIZE, DEVICES, RATE = 8, 5, 0.02


@dataclass
class Quadratic:
    """``½ (w - c)ᵀ A (w - c)`` of one device, which makes so many steps."""

    a: np.ndarray
    c: np.ndarray
    examples: int
    steps: int
    control: np.ndarray

    def gradient(self, w: np.ndarray) -> np.ndarray:
        return self.a @ (w - self.c)


def fleet(steps: Callable[[int], int], curved: bool, weighted: bool = False) -> list[Quadratic]:
    random = np.random.default_rng(11)
    devices = []
    for index in range(DEVICES):
        root = random.normal(size=(SIZE, SIZE)) * curved
        a = root @ root.T / SIZE + np.eye(SIZE)
        examples = 10 + 10 * index * weighted
        devices.append(Quadratic(a, random.normal(size=SIZE) * 3, examples, steps(index), np.zeros(SIZE)))
    return devices


def optimum(devices: list[Quadratic]) -> np.ndarray:
    shares = np.array([each.examples for each in devices], float)
    whole = sum(share * each.a for share, each in zip(shares, devices, strict=True))
    return np.linalg.solve(whole, sum(share * each.a @ each.c for share, each in zip(shares, devices, strict=True)))


def sgd(device: Quadratic, received: np.ndarray, correction: np.ndarray | float = 0.0, pull: float = 0.0) -> np.ndarray:
    """The steps of a device: its gradient, a constant, and a pull to what it received."""
    w = received.copy()
    for _ in range(device.steps):
        w = w - RATE * (device.gradient(w) + correction + pull * (w - received))
    return w


def sections(strategy: Strategy, device: Quadratic, state: StrategyState) -> dict[str, np.ndarray]:
    """A device's side of the algorithm, as docs/protocol.md has it."""
    received = state.weights.astype(float)
    if isinstance(strategy, Scaffold):
        c = state.slots["control"].astype(float)
        delta = sgd(device, received, c - device.control) - received
        after = device.control - c - delta / (device.steps * RATE)
        change, device.control = after - device.control, after
        return {"delta": delta, "control": change}
    if isinstance(strategy, FedDyn):
        delta = sgd(device, received, -device.control, strategy.mu) - received
        device.control = device.control - strategy.mu * delta
        return {"delta": delta}
    return {"delta": sgd(device, received) - received}


def distance(strategy: Strategy, devices: list[Quadratic], rounds: int = 400) -> float:
    """How far from the optimum the weights end, relative to it."""
    state = strategy.init(np.zeros(SIZE, np.float32), SIZE)
    for _ in range(rounds):
        updates = [
            Update(
                f"t{index}",
                device.examples,
                {name: each.astype(np.float32) for name, each in sections(strategy, device, state).items()},
                steps=device.steps,
            )
            for index, device in enumerate(devices)
        ]
        state = strategy.apply(state, Updates.of(updates), Cohort(DEVICES))[0]
    best = optimum(devices)
    return float(np.linalg.norm(state.weights - best) / np.linalg.norm(best))


def equal(index: int) -> int:
    return 20


def unequal(index: int) -> int:
    return 2 + 12 * index


@pytest.mark.parametrize(
    ("strategy", "steps"),
    [(Scaffold(), equal), (Scaffold(), unequal), (FedDyn(mu=1.0), equal)],  # FedDyn's paper has devices that minimise
    ids=["SCAFFOLD", "SCAFFOLD, unequal", "FedDyn"],
)
def test_with_unlike_curvature_corrections_reach_the_optimum_and_fedavg_does_not(strategy: Strategy, steps) -> None:
    assert distance(strategy, fleet(steps, curved=True)) < 1e-3
    assert distance(FedAvg(), fleet(steps, curved=True)) > 0.02


@pytest.mark.parametrize("weighted", [False, True])
def test_with_unequal_steps_fednova_comes_nearer_than_fedavg(weighted: bool) -> None:
    """With like curvature the drift of a step has no direction, and what is left is who makes how many."""
    nova, plain = (distance(each, fleet(unequal, False, weighted)) for each in (FedNova(), FedAvg()))
    assert plain > 0.15
    assert nova < plain / 2


def test_with_a_falling_rate_fednova_nears_the_optimum_and_fedavg_goes_where_the_many_steps_lead(monkeypatch) -> None:
    """Wang et al. 2020, theorem 1: FedAvg's fixed point does not come nearer with a smaller rate, FedNova's does."""
    found = {}
    for rate, rounds in ((0.02, 300), (0.002, 1200)):
        monkeypatch.setitem(globals(), "RATE", rate)
        for strategy in (FedNova(), FedAvg()):
            found[type(strategy), rate] = distance(strategy, fleet(unequal, True), rounds)
    assert found[FedNova, 0.002] < found[FedNova, 0.02] / 4 < 0.2
    assert found[FedAvg, 0.002] > 0.5


def test_with_equal_steps_fednova_is_fedavg() -> None:
    nova, plain = (distance(each, fleet(equal, True, True), 30) for each in (FedNova(), FedAvg()))
    assert nova == pytest.approx(plain, rel=1e-5)
