"""edgefl: the trainable file in a TFLite interpreter."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import edgefl
from local_steps.cases import load_batch


def make_step(name: str, folder: Path, threads: int, form: str) -> Callable[[], float]:
    """A training step; the form is the runtime."""
    trainer = edgefl.TrainableModel(folder / "model.tflite", num_threads=threads, runtime=form)
    x, y = load_batch(folder)
    return lambda: trainer.train_on_batch(x, y)["loss"]
