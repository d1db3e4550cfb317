"""The loop that one writes first: a pool of processes with a trainer each, weights and deltas sent to and fro."""

from __future__ import annotations

import multiprocessing
from typing import Any

import numpy as np

import edgefl
from fleets.job import COHORT, DEVICES, EVALUATED, Job, read_job, watched

_state: dict[str, Any] = {}


def begin(job: Job) -> None:
    _state["model"] = edgefl.TrainableModel(job.file)
    # Mapped, so that not each process has all of it.
    _state["x"], _state["y"] = (np.load(job.data / f"{name}.npy", mmap_mode="r") for name in "xy")
    owners = np.load(job.data / "id.npy")
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
    with watched() as watch, multiprocessing.get_context("spawn").Pool(job.workers, begin, (job,)) as pool:
        model = edgefl.TrainableModel(job.file)
        weights = model.weights
        for number in range(job.rounds):
            drawn = random.choice(DEVICES, COHORT, replace=False)
            work = [(int(device), weights, 1000 * number + int(device)) for device in drawn]
            total, examples = np.zeros(weights.size), 0
            for delta, count in pool.imap(train, work):
                total += count * delta.astype(np.float64)
                examples += count
            weights = (weights + total / examples).astype(np.float32)
            watch.round(COHORT)
            if number + 1 == EVALUATED:
                model.weights = weights
                watch.accuracy = model.evaluate(*job.tests())["accuracy"]
    watch.finish()


if __name__ == "__main__":
    main()
