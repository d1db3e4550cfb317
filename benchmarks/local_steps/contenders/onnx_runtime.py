"""ONNX Runtime training, without PyTorch in the process, as a device would have it."""

from __future__ import annotations

import importlib.util
import sys
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np

from local_steps.cases import CASES, load_batch

__all__ = ["make_step"]


def _pass_by_torch() -> None:
    """Registers the package whose own code imports torch as an empty one; its modules for training need none.

    And torch as missing, as on a device: onnxruntime tries to import it for another use, and goes on without.
    """
    sys.modules["torch"] = None  # type: ignore[assignment]
    package = types.ModuleType("onnxruntime.training")
    found = importlib.util.find_spec("onnxruntime")
    assert found is not None
    assert found.submodule_search_locations is not None
    package.__path__ = [str(Path(found.submodule_search_locations[0], "training"))]
    sys.modules["onnxruntime.training"] = package


def make_step(name: str, folder: Path, threads: int, form: str) -> Callable[[], float]:
    """A training step; there is one form."""
    _pass_by_torch()
    import onnxruntime
    from onnxruntime.training.api import CheckpointState, Module, Optimizer

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    artifacts = folder / "onnx"
    state = CheckpointState.load_checkpoint(artifacts / "checkpoint")
    module = Module(artifacts / "training_model.onnx", state, session_options=options)
    optimizer = Optimizer(artifacts / "optimizer_model.onnx", module)
    optimizer.set_learning_rate(CASES[name].learning_rate)
    x, y = load_batch(folder)
    if not CASES[name].tokens and name != "lstm":
        x = np.ascontiguousarray(np.moveaxis(x, -1, 1))
    y = y.reshape(-1).astype(np.int64)

    def step() -> float:
        loss = float(module(x, y))
        optimizer.step()
        module.lazy_reset_grad()
        return loss

    return step
