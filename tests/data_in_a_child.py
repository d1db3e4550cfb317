"""Does a task whose data file is written to in the middle, and prints what the server would be told.

Run by path: ``data_in_a_child.py RUNTIME MODEL DATA STEP HOW``: at that step, DATA is written over by ``numpy.savez``
(``in place``), or another file is renamed over it (``renamed``). Standard output is JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from edgefl.hashing import sha256
from edgefl_device_runtime.agent.sources import open_source
from edgefl_device_runtime.tasks import ModelTrainer, Received, perform
from edgefl_device_runtime.training import TrainableModel
from rounds_in_a_child import task


def main(runtime: str, model: Path, data: Path, step: int, how: str) -> None:
    """Does the task."""
    trainer = ModelTrainer(TrainableModel(model, runtime=runtime))
    made, weights = task(model)
    steps = 0

    def progress() -> None:
        nonlocal steps
        steps += 1
        if steps != step:
            return
        small = {"x": np.zeros((3, 256), np.float32), "y": np.zeros(3, int)}
        if how == "in place":
            np.savez(data, **small)
        elif how == "renamed":
            np.savez(data.with_name("new.npz"), **small)
            data.with_name("new.npz").replace(data)

    open_before = len(list(Path("/proc/self/fd").iterdir()))
    done = perform(made, trainer, Received(weights), open_source(data)(), progress=progress)
    result: dict[str, object] = {"status": done.outcome.status.name, "outcome": sha256(done.outcome.encode())}
    if done.error is not None:
        result = {"status": done.outcome.status.name, "reason": done.outcome.reason.name, "message": str(done.error)}
    del done
    left = len(list(Path("/proc/self/fd").iterdir())) - open_before
    sys.stdout.write(json.dumps({**result, "steps": steps, "left_open": left}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]), sys.argv[5])
