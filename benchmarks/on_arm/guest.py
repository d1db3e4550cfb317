"""The program inside the emulation: runs one signature of a file, with a mark before and after what is counted.

    python guest.py RUNTIME FOLDER SIGNATURE STEPS

reads FOLDER/model.tflite and inputs.npz; writes outputs.npz (of the last step), losses.json (one value a step) and maps
(where libraries lie).
It sees numpy and an interpreter only, and no part of edgefl.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from importlib import import_module
from pathlib import Path

import numpy as np

WARM = 2


def main() -> None:
    runtime, folder, signature, steps = sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    module = {"tflite-runtime": "tflite_runtime", "ai-edge-litert": "ai_edge_litert"}[runtime]
    interpreter = import_module(f"{module}.interpreter").Interpreter(str(folder / "model.tflite"), num_threads=1)
    interpreter.allocate_tensors()
    runner = interpreter.get_signature_runner(signature)
    with np.load(folder / "inputs.npz") as stored:
        inputs = {name: stored[name] for name in runner.get_input_details()}
    losses = []
    for step in range(WARM + steps):
        if step == WARM:
            os.getpriority(os.PRIO_PROCESS, 0)
        results = runner(**inputs)
        losses.append(results.get("loss"))
    os.getpriority(os.PRIO_PROCESS, 0)
    np.savez(folder / "outputs.npz", **results)
    values = [float(np.mean(loss)) for loss in losses if loss is not None]
    (folder / "losses.json").write_text(json.dumps(values))
    shutil.copyfile("/proc/self/maps", folder / "maps")


if __name__ == "__main__":
    main()
