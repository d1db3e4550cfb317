"""Calls the signatures of a model file one after the other, in a process of its own without TensorFlow.

tflite-runtime does not work in a process that has loaded TensorFlow, so this file is run by path, with numpy and one
interpreter only: ``python runner.py MODULE MODEL JOB RESULT``, where MODULE holds the class ``Interpreter``. JOB is an
``.npz``: ``calls``, JSON as bytes, and the arrays that it refers to. RESULT gets the outputs, ``<call>/<tensor>``.
Exit code 3: the runtime itself does not work.
"""

from __future__ import annotations

import importlib
import json
import sys
from typing import Any

RUNTIME_UNUSABLE = 3


def main(module: str, model_path: str, job_path: str, result_path: str) -> int:
    """Runs a job; returns the exit code."""
    import numpy as np

    try:
        make_interpreter = importlib.import_module(module).Interpreter
    except Exception as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return RUNTIME_UNUSABLE

    with np.load(job_path) as job:
        calls = json.loads(bytes(job["calls"]))
        arrays = {name: job[name] for name in job.files if name != "calls"}
    results: dict[str, Any] = {}
    runners: dict[str, Any] = {}
    interpreter: Any = None
    for index, call in enumerate(calls):
        if interpreter is None or call["fresh"]:
            runners.clear()
            interpreter = make_interpreter(model_path=model_path, num_threads=1)
            # Without this, tflite-runtime 2.14 never applies its fast kernels: what devices run would not be tested.
            interpreter.allocate_tensors()
        signature = call["signature"]
        if signature not in runners:
            runners[signature] = interpreter.get_signature_runner(signature)
        inputs = {tensor: arrays[name] for tensor, name in call["inputs"].items()}
        inputs.update({tensor: results[name] for tensor, name in call["carried"].items()})
        for tensor, value in runners[signature](**inputs).items():
            results[f"{index}/{tensor}"] = np.array(value)
    np.savez(result_path, **results)
    return 0


if __name__ == "__main__":
    sys.path.pop(0)  # the folder of this file: its modules must not be found under other packages' names
    sys.exit(main(*sys.argv[1:]))
