"""The program inside the emulation: runs a signature of some files, with a mark before and after what is counted.

    python guest.py RUNTIME FOLDER SIGNATURE STEPS

reads FOLDER/0.tflite and 0.npz, 1.tflite and so on; writes 0.out.npz (outputs of the last step), losses.json (for each
file one value a step) and maps (where libraries lie). It sees numpy and an interpreter only, and no part of edgefl.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

WARM = 2


def main() -> None:
    """Runs all files in turn."""
    runtime, folder, signature, steps = sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    module = {"tflite-runtime": "tflite_runtime", "ai-edge-litert": "ai_edge_litert"}[runtime]
    interpreter = import_module(f"{module}.interpreter").Interpreter
    losses = [
        run(interpreter, folder, str(index), signature, steps) for index in range(len(list(folder.glob("*.tflite"))))
    ]
    (folder / "losses.json").write_text(json.dumps(losses))
    shutil.copyfile("/proc/self/maps", folder / "maps")


def run(interpreter: Any, folder: Path, name: str, signature: str, steps: int) -> list[float]:
    """Some steps that are not counted, then those that are."""
    model = interpreter(str(folder / f"{name}.tflite"), num_threads=1)
    model.allocate_tensors()
    runner = model.get_signature_runner(signature)
    with np.load(folder / f"{name}.npz") as stored:
        inputs = {key: stored[key] for key in runner.get_input_details()}
    losses, results = [], {}
    for step in range(WARM + steps):
        if step == WARM:
            os.getpriority(os.PRIO_PROCESS, 0)
        results = runner(**inputs)
        losses.append(results.get("loss"))
    os.getpriority(os.PRIO_PROCESS, 0)
    np.savez(folder / f"{name}.out.npz", **results)
    return [float(np.mean(loss)) for loss in losses if loss is not None]


if __name__ == "__main__":
    main()
