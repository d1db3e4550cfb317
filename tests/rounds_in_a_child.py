"""Does many rounds of a device in this process, without a server, and prints by how many MB its memory grew.

Run by path: ``rounds_in_a_child.py RUNTIME ROUNDS MODEL...``. With several models every round is another model's than
the one before, which is let go of as `Device` does. Standard output is JSON: ``grown`` over what the first tenth of the
rounds needed, and all of what was measured.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgefl.hashing import weights_hash
from edgefl.model_file import ModelFile
from edgefl.wire.messages import Task
from edgefl_device_runtime.agent.cli import _return_freed_memory
from edgefl_device_runtime.tasks import Examples, ModelTrainer, Received, perform
from edgefl_device_runtime.training import TrainableModel

ROWS = 12


def resident() -> float:
    """Megabytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 1e6


def task(path: Path) -> tuple[Task, np.ndarray]:
    """A task for a model file, and the weights that it starts from."""
    file = ModelFile.read(path)
    weights, manifest = file.initial_weights(), file.manifest
    made = Task(
        population="p",
        run="r",
        cohort=1,
        task_id="t",
        model_hash="0" * 64,
        graph_hash=manifest.graph_hash,
        layout_hash=manifest.layout_hash,
        base_weights_hash=weights_hash(weights),
        seed=1,
        epochs=1,
    )
    return made, weights


def examples(trainer: ModelTrainer) -> Examples:
    """Some rows of the shapes that the model takes."""
    manifest, random = trainer.manifest, np.random.default_rng(0)
    specs = {spec.name: spec for spec in manifest.signatures["train"].inputs}
    x = {name: random.random((ROWS, *specs[name].shape[1:])).astype(specs[name].dtype) for name in manifest.inputs}
    y = {each.name: np.zeros((ROWS, *specs[each.name].shape[1:]), specs[each.name].dtype) for each in manifest.targets}
    return Examples(x, y)


def main(runtime: str, rounds: int, paths: list[Path]) -> None:
    """Does the rounds."""
    _return_freed_memory()
    trainer: ModelTrainer | None = None
    loaded: Path | None = None
    tasks = {path: task(path) for path in paths}
    found = []
    for number in range(rounds):
        path = paths[number % len(paths)]
        if path != loaded:
            trainer = None
            trainer, loaded = ModelTrainer(TrainableModel(path, runtime=runtime)), path
        assert trainer is not None
        made, weights = tasks[path]
        made = replace(made, task_id=f"t-{number}", cohort=number, seed=number)
        result = perform(made, trainer, Received(weights), examples(trainer))
        assert result.error is None
        result.outcome.encode()
        found.append(resident())
    warm = max(len(found) // 10, 2)
    sys.stdout.write(json.dumps({"grown": max(found[warm:]) - max(found[:warm]), "measured": found}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), [Path(each) for each in sys.argv[3:]])
