"""The loop that one writes first: a pool of processes with a trainer each, weights and deltas sent to and fro."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np

import edgefl
from fleets.job import read_job, watched

_state: dict[str, Any] = {}


def begin(model: str, data: str) -> None:
    _state["model"] = edgefl.TrainableModel(model)
    # Mapped, so that not each process has all of it.
    _state["x"], _state["y"] = (np.load(Path(data) / f"{name}.npy", mmap_mode="r") for name in "xy")
    owners = np.load(Path(data) / "id.npy")
    order = np.argsort(owners, kind="stable")
    _state["parts"] = np.split(order, np.flatnonzero(owners[order][1:] != owners[order][:-1]) + 1)


def train(job: tuple[int, Any, int]) -> tuple[Any, int]:
    device, weights, seed = job
    model, rows = _state["model"], np.sort(_state["parts"][device])
    model.reset_optimizer()
    model.weights = weights
    model.fit(_state["x"][rows], _state["y"][rows], epochs=1, seed=seed)
    return model.delta(weights), len(rows)


def main() -> None:
    job = read_job()
    random = np.random.default_rng(job.seed)
    with watched() as watch:
        with multiprocessing.get_context("spawn").Pool(job.workers, begin, (job.model, job.data)) as pool:
            model = edgefl.TrainableModel(job.model)
            weights = model.weights
            for number in range(job.rounds):
                drawn = random.choice(100, job.cohort, replace=False)
                work = [(int(device), weights, 1000 * number + int(device)) for device in drawn]
                total, examples = np.zeros(weights.size), 0
                for delta, count in pool.imap(train, work):
                    total += count * delta.astype(np.float64)
                    examples += count
                weights = (weights + total / examples).astype(np.float32)
                watch.round(job.cohort)
        model.weights = weights
        x, y = (np.load(Path(job.data) / f"test_{name}.npy") for name in "xy")
        accuracy = model.evaluate(x, y)["accuracy"]
    watch.finish(accuracy)


if __name__ == "__main__":
    main()
