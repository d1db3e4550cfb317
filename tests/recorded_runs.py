"""Seeded runs of every strategy, with a real server and real devices, of which the weights after each round are kept.

`python tests/recorded_runs.py` records them undisturbed for the architecture that it runs on, in `tests/golden/`. Those
that lie there were first computed, with kills, by the code as it was before tasks, schedules and strategies became
functions: commit e4fef8d, and 411f352 for the one with statistics, since in between it had been mended what a device
with BatchNormalization counts for. They have not been recorded again: a difference means that fleets in the field would
train other weights.
"""

from __future__ import annotations

import json
import random
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from real_processes import Fleet, Process, write_identity

__all__ = ["CASES", "RUNTIME", "perform", "record_file"]

GOLDEN = Path(__file__).with_name("golden")
ROUNDS, DEVICES, SEED, POPULATION = 12, 3, 11, "kitchen"
RUNTIME = "ai-edge-litert"
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "fedavg": ("dropout", {"epochs": 2}),
    "fedprox": ("dropout", {"strategy": "fedprox", "mu": 0.5, "epochs": 2}),
    "fedsgd": ("dropout", {"strategy": "fedsgd", "server_learning_rate": 0.5}),
    "scaffold": ("dropout", {"strategy": "scaffold", "server_learning_rate": 0.7, "epochs": 2}),
    "feddyn": ("dropout", {"strategy": "feddyn", "mu": 0.25, "epochs": 2}),
    "fedavgm": ("dropout", {"strategy": "fedavgm", "momentum": 0.5, "epochs": 2}),
    "fedadagrad": ("dropout", {"strategy": "fedadagrad", "server_learning_rate": 0.05, "epochs": 2}),
    "fedadam": ("dropout", {"strategy": "fedadam", "server_learning_rate": 0.02, "epochs": 2}),
    "fedyogi": ("dropout", {"strategy": "fedyogi", "epochs": 2}),
    "fednova": ("dropout", {"strategy": "fednova", "epochs": 2}),
    "qfedavg": ("dropout", {"strategy": "qfedavg", "q": 0.5, "local_test": 0.2, "epochs": 2}),
    "robust": ("dropout", {"strategy": "robust", "byzantine": 1, "epochs": 2}),
    "fedavg-float16-clipped": ("dropout", {"epochs": 2, "codec": "float16", "clip_norm": 0.25}),
    "fedavg-statistics": ("normalised", {"epochs": 2}),
}
"""By name: the model file of the golden set, and the run's settings."""


def record_file(where: str) -> Path:
    """Where the hashes of an architecture lie: a case to the hash of the weights after each round."""
    return GOLDEN / f"runs.{where}.{RUNTIME}.json"


class _Run:
    def __init__(self, folder: Path, case: str) -> None:
        model, settings = CASES[case]
        self.fleet, self.folder = Fleet(folder), folder
        for index in range(DEVICES):
            write_identity(folder / f"d{index}", index)
            generator = np.random.default_rng(index)
            x = generator.normal(size=(19 + 8 * index, 6)).astype(np.float32)
            np.savez(folder / f"d{index}.npz", x=x, y=np.argmax(x[:, :3] + x[:, 3:], axis=1).astype(np.int32))
        self.fleet.start_server()
        given = {"rounds": ROUNDS, "target": DEVICES, "seed": SEED, **settings}
        self.run = self.fleet.create_run(GOLDEN / f"{model}.tflite", POPULATION, **given)
        self.devices = [self.start(index) for index in range(DEVICES)]

    def start(self, index: int) -> Process:
        data = self.folder / f"d{index}.npz"
        return self.fleet.start_device(f"d{index}", POPULATION, data, "--runtime", RUNTIME)

    def rounds(self) -> list[str]:
        """Hashes of the weights after the rounds that are over."""
        return [entry["weights_hash"] for entry in self.fleet.status(self.run)["history"] if entry["state"] == "done"]

    def kill(self, victim: int | str) -> None:
        assert len(self.rounds()) < ROUNDS, "the run ended before the last kill: give it more rounds"
        if victim == "server":
            assert self.fleet.server is not None
            self.fleet.server.kill()
            self.fleet.start_server()
            return
        index = int(victim)
        self.devices[index].kill()
        self.devices[index] = self.start(index)


def perform(folder: Path, case: str, kills: Sequence[int | str] = ()) -> list[str]:
    """Does a run to its end.

    Args:
        folder: an empty one.
        case: of `CASES`.
        kills: who is killed with ``kill -9`` and started again, one after the other, while rounds go on: a device's
            number or ``server``.

    Returns:
        The hash of the weights after each round; the last one is that of the final weights.
    """
    run = _Run(folder, case)
    try:
        chaos = random.Random(5)
        for number, victim in enumerate(kills):
            while len(run.rounds()) < 1 + 2 * number:
                time.sleep(0.02)
            # A kill may hit any moment of a round.
            time.sleep(chaos.uniform(0, 0.1))
            run.kill(victim)
        for device in run.devices:
            device.finish(patience=300)
        hashes = run.rounds()
        assert len(hashes) == ROUNDS
        return hashes
    finally:
        run.fleet.close()


def main() -> None:
    """Records every case undisturbed."""
    import sys

    sys.path.insert(0, str(GOLDEN))
    from golden_set import architecture

    found = {}
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            found[case] = perform(Path(folder), case)
    record_file(architecture()).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
