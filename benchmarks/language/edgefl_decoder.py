"""edgefl: the file in an interpreter."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import edgefl
from language.sizes import SIZES, batch_of

__all__ = ["make_step"]


def make_step(name: str, folder: Path, threads: int, runtime: str) -> Callable[[], float]:
    """A training step."""
    trainer = edgefl.TrainableModel(folder / "model.tflite", num_threads=threads, runtime=runtime)
    x, y = batch_of(SIZES[name])
    return lambda: trainer.train_on_batch(x, y)["loss"]
