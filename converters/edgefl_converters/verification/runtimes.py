"""The TFLite interpreters that are installed here, each run in child processes."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgefl.child_processes import ChildFailedError, run_child
from edgefl.errors import RuntimeFailure
from edgefl.targets import RUNTIMES, included
from edgefl_converters.verification import runner

__all__ = ["Call", "Runtime", "UnusableRuntimeError", "installed_runtimes", "runtimes_for"]

_SECONDS = 1800.0
"""A child that takes longer hangs: the largest models tried need seconds."""


class UnusableRuntimeError(RuntimeFailure):
    """A runtime is installed but cannot be imported here, for example tflite-runtime beside numpy 2."""


@dataclass(frozen=True)
class Call:
    """One call of a signature.

    Attributes:
        signature: its name.
        inputs: array by tensor key.
        carried: inputs that are outputs of earlier calls of the same job: ``(index of the call, its tensor key)``.
        fresh: True to begin with a new interpreter, whose variables have their initial values.
    """

    signature: str
    inputs: Mapping[str, NDArray[np.generic]] = field(default_factory=dict)
    carried: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    fresh: bool = False


@dataclass(frozen=True)
class Runtime:
    """An installed interpreter.

    Attributes:
        name: of the distribution, ``ai-edge-litert`` or ``tflite-runtime``.
        version: of the distribution.
    """

    name: str
    version: str

    def run(self, model: Path, calls: Sequence[Call]) -> list[dict[str, NDArray[np.generic]]]:
        """Runs calls in order in one child process.

        Args:
            model: the model file.
            calls: the first one always begins with a new interpreter.

        Returns:
            For each call, its outputs by tensor key.

        Raises:
            UnusableRuntimeError: the runtime cannot be imported.
            RuntimeFailure: it refuses the model, fails or dies.
        """
        with tempfile.TemporaryDirectory(prefix="edgefl-verify-") as folder:
            job, result = Path(folder, "job.npz"), Path(folder, "result.npz")
            _write_job(job, calls)
            try:
                run_child(runner.__file__, RUNTIMES[self.name], model, job, result, seconds=_SECONDS)
            except ChildFailedError as error:
                raise self._failure(error) from error
            outputs: list[dict[str, NDArray[np.generic]]] = [{} for _ in calls]
            with np.load(result) as arrays:
                for key in arrays.files:
                    index, tensor = key.split("/", 1)
                    outputs[int(index)][tensor] = arrays[key]
            return outputs

    def _failure(self, error: ChildFailedError) -> RuntimeFailure:
        runtime = f"{self.name} {self.version}"
        if error.timed_out:
            return RuntimeFailure(f"{runtime} did not finish in {_SECONDS:.0f} s.")
        reason = f"killed by {error.killed_by}" if error.killed_by else error.last_line or "no message"
        if error.returncode == runner.RUNTIME_UNUSABLE:
            return UnusableRuntimeError(f"{runtime} does not work here: {reason}")
        return RuntimeFailure(f"{runtime} fails on the model: {reason}")


def installed_runtimes() -> list[Runtime]:
    """The runtimes that could be imported here, the faster one first."""
    return [
        Runtime(name, importlib.metadata.version(name))
        for name, module in RUNTIMES.items()
        if importlib.util.find_spec(module.partition(".")[0]) is not None
    ]


def runtimes_for(target: str) -> list[Runtime]:
    """Those of the installed runtimes that a target includes.

    Args:
        target: a name of `edgefl.targets`.
    """
    targets = included(target)
    return [
        runtime
        for runtime in installed_runtimes()
        if any(each.covers(runtime.name, runtime.version) for each in targets)
    ]


def _write_job(path: Path, calls: Sequence[Call]) -> None:
    arrays: dict[str, Any] = {}
    names: dict[int, str] = {}

    def store(array: NDArray[np.generic]) -> str:
        # The same batch goes into many calls: keep one copy of it.
        if id(array) not in names:
            names[id(array)] = f"array{len(names)}"
            arrays[names[id(array)]] = array
        return names[id(array)]

    described = [
        {
            "signature": call.signature,
            "inputs": {tensor: store(array) for tensor, array in call.inputs.items()},
            "carried": {tensor: f"{index}/{key}" for tensor, (index, key) in call.carried.items()},
            "fresh": call.fresh,
        }
        for call in calls
    ]
    encoded = np.frombuffer(json.dumps(described).encode(), np.uint8)
    with path.open("wb") as file:
        np.savez(file, calls=encoded, **arrays)
