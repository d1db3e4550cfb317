"""Runs TensorFlow functions three ways: by TensorFlow's own kernels, and lowered on each TFLite runtime."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from edgefl_converters.emission.walk import Origins, Walk
from edgefl_converters.flatbuffer.saved_model import convert_saved_model
from interpreters import EXPECTED

TOLERANCE = 1e-5

_CHILD = """
import sys
import numpy as np
from tflite_runtime.interpreter import Interpreter
folder = sys.argv[1]
interpreter = Interpreter(folder + "/model.tflite")
interpreter.allocate_tensors()
given = np.load(folder + "/inputs.npz")
np.savez(folder + "/outputs.npz", **interpreter.get_signature_runner("serving_default")(**given))
"""


class KernelParity:
    """Collects cases, then lowers them all in one conversion: starting a converter for each would take minutes.

    A case is a function of float32 arrays that calls one TensorFlow kernel.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._functions: list[Callable[..., tf.Tensor]] = []
        self._references: list[Callable[..., tf.Tensor]] = []
        self._arrays: list[Sequence[np.ndarray[Any, Any]]] = []
        self.names: list[str] = []

    def add(self, name: str, function: Callable[..., tf.Tensor], *arrays: Any, reference: Any = None) -> None:
        """Adds a case; ``reference`` stands in for kernels that TensorFlow itself lacks on a CPU."""
        self.names.append(name)
        self._references.append(reference or function)
        self._functions.append(function)
        self._arrays.append([np.asarray(array) for array in arrays])

    def errors(self) -> dict[tuple[str, str], float]:
        """Largest error of each case on each runtime, relative to the largest value that TensorFlow gives."""
        expected = [
            np.asarray(function(*map(tf.constant, arrays))) for function, arrays in zip(self._references, self._arrays)
        ]
        inputs = {
            f"a{case}_{index}": array for case, arrays in enumerate(self._arrays) for index, array in enumerate(arrays)
        }
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / "model.tflite").write_bytes(self._convert(inputs))
        np.savez(self._folder / "inputs.npz", **inputs)
        found = {}
        for runtime in EXPECTED:
            outputs = self._tflite_runtime() if runtime == "tflite-runtime" else self._litert(inputs)
            for case, (name, truth) in enumerate(zip(self.names, expected)):
                got = outputs[f"r{case}"]
                assert got.shape == truth.shape, f"{name} on {runtime}: {got.shape}, expected {truth.shape}"
                scale = max(float(np.abs(truth).max(initial=0.0)), 1e-6)
                difference = np.abs(got.astype(np.float64) - truth.astype(np.float64)).max(initial=0.0)
                found[name, runtime] = float(difference) / scale
        return found

    def check(self) -> None:
        """Fails with the worst cases if any is further off than the tolerance."""
        assert self.names, "no cases"
        wrong = {case: error for case, error in self.errors().items() if not error <= TOLERANCE}
        worst = sorted(wrong.items(), key=lambda item: -item[1])[:10]
        assert not wrong, f"{len(wrong)} of {len(EXPECTED) * len(self.names)} differ: {worst}"

    def _convert(self, inputs: Mapping[str, np.ndarray[Any, Any]]) -> bytes:
        traced = []
        for function, arrays in zip(self._functions, self._arrays):
            specs = [tf.TensorSpec(array.shape, array.dtype) for array in arrays]
            traced.append(tf.function(function, autograph=False).get_concrete_function(*specs))

        def lowered(**given: tf.Tensor) -> dict[str, tf.Tensor]:
            walk, results = Walk(lambda key: key, Origins()), {}
            for case, concrete in enumerate(traced):
                graph = concrete.graph
                bound = {inner.name: given[f"a{case}_{index}"] for index, inner in enumerate(graph.inputs)}
                (result,) = walk.emit(graph, bound, graph.outputs)
                results[f"r{case}"] = tf.identity(result)
            return results

        specs = {key: tf.TensorSpec(array.shape, array.dtype, name=key) for key, array in inputs.items()}
        module = tf.Module()
        module.run = tf.function(lowered, autograph=False)
        # By way of a saved model: straight from the function the converter drags every op's Python stack along.
        signatures = {"serving_default": module.run.get_concrete_function(**specs)}
        tf.saved_model.save(module, str(self._folder / "saved"), signatures=signatures)
        return convert_saved_model(str(self._folder / "saved"), ["serving_default"])

    def _litert(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        interpreter = Interpreter(str(self._folder / "model.tflite"))
        interpreter.allocate_tensors()
        return dict(interpreter.get_signature_runner("serving_default")(**inputs))

    def _tflite_runtime(self) -> Mapping[str, Any]:
        subprocess.run([sys.executable, "-c", _CHILD, str(self._folder)], check=True, capture_output=True, timeout=120)
        with np.load(self._folder / "outputs.npz") as outputs:
            return dict(outputs)
