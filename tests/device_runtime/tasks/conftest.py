"""A device that does tasks without files or sockets, and whose results can be worked out by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgefl.wire.messages import Correction, ExtraVector, SectionCodec, Task
from edgefl_device_runtime.tasks import Received, Remembered, TaskResult, perform
from quadratic_trainer import ELEMENTS, QuadraticTrainer, quadratic_manifest

SECTIONS = ("delta", "statistics", "control", "gradient")


class InMemoryDevice:
    """Does tasks one after the other, and keeps what is to be remembered."""

    def __init__(self, *further: Any, **manifest: Any) -> None:
        self.trainer = QuadraticTrainer(quadratic_manifest(*further, **manifest))
        self.manifest = self.trainer.manifest
        self.weights = np.zeros(self.manifest.layout.size, np.float32)
        self.data: dict[str, NDArray[Any]] = {
            "x": np.arange(4 * ELEMENTS, dtype=np.float32).reshape(4, ELEMENTS),
            "y": np.zeros(4, np.float32),
        }
        self.remembered: Remembered = {}

    def task(self, task_id: str = "t1", *, codec: str | None = None, **changes: Any) -> Task:
        """Makes a task, whose outcome's sections are all written with ``codec`` when it is given."""
        if codec is not None:
            changes["codecs"] = tuple(SectionCodec(name, codec) for name in SECTIONS)
        task = Task(
            population="kitchen",
            run="r",
            cohort=1,
            task_id=task_id,
            model_hash="0" * 64,
            graph_hash=self.manifest.graph_hash,
            layout_hash=self.manifest.layout_hash,
            base_weights_hash="b" * 64,
            seed=3,
            epochs=3,
            continues="",
        )
        return replace(task, **changes)

    def perform(self, task: Task, control: NDArray[np.float32] | None = None, **more: Any) -> TaskResult:
        received = Received(self.weights, {} if control is None else {"control": control})
        result = perform(task, self.trainer, received, more.pop("data", self.data), self.remembered, **more)
        self.remembered = result.remembered
        return result

    def scaffold_task(self, task_id: str = "t1", **changes: Any) -> Task:
        vectors = (ExtraVector("control", "c" * 64),)
        return self.task(task_id, correction=Correction.SCAFFOLD, extra_vectors=vectors, **changes)


@pytest.fixture
def make_device() -> Callable[..., InMemoryDevice]:
    return InMemoryDevice


@pytest.fixture
def device() -> InMemoryDevice:
    return InMemoryDevice()
