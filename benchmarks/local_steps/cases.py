"""The models of the table as data, and their batches. Every contender's process reads this: it imports numpy only."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

__all__ = ["CASES", "Case", "load_batch", "save_batch"]


class Case(NamedTuple):
    """One model.

    Attributes:
        title: as the table names it.
        shape: of one row of the input.
        classes: how many there are.
        batches: sizes that are measured.
        learning_rate: large enough that three steps move the loss visibly, small enough that rounding stays rounding
            (gradients through the 53 layers of MobileNetV2 are large, and rounding is amplified on the way).
        tokens: how many there are, where the input is a row of tokens and each is given a class.
        head_only: only the last layer is trained, the rest is frozen and normalises with its moving averages.
    """

    title: str
    shape: tuple[int, ...]
    classes: int
    batches: tuple[int, ...] = (10, 32)
    learning_rate: float = 0.01
    tokens: int = 0
    head_only: bool = False


CASES = {
    "2nn": Case("2NN (784-200-200-10)", (784,), 10),
    "fedavg_cnn": Case("FedAvg CNN (28 x 28)", (28, 28, 1), 10),
    "smartwatch_1d_cnn": Case("1-D CNN (100 x 6)", (100, 6), 7),
    "mobilenet_v2_head": Case("MobileNetV2 0.35, frozen base (96 x 96)", (96, 96, 3), 10, (8, 32), head_only=True),
    "mobilenet_v2": Case("MobileNetV2 0.35 in full (96 x 96)", (96, 96, 3), 10, (8,), learning_rate=1e-6),
    "lstm": Case("LSTM(64), 50 steps of 6", (50, 6), 7, learning_rate=0.05),
    "transformer": Case("Transformer, 2 blocks, 32 tokens, width 64", (32,), 64, learning_rate=0.05, tokens=64),
}


def save_batch(case: Case, size: int, folder: Path) -> None:
    """Writes one batch of random rows; the speed of a step does not depend on its content."""
    random = np.random.default_rng(0)
    if case.tokens:
        x = random.integers(0, case.tokens, (size, *case.shape)).astype(np.int32)
        y = random.integers(0, case.classes, (size, *case.shape)).astype(np.int32)
    else:
        x = random.normal(size=(size, *case.shape)).astype(np.float32)
        y = random.integers(0, case.classes, size).astype(np.int32)
    np.save(folder / "x.npy", x)
    np.save(folder / "y.npy", y)


def load_batch(folder: Path) -> tuple[Any, Any]:
    """The batch as Keras has it: channels last, int32 classes."""
    return np.load(folder / "x.npy"), np.load(folder / "y.npy")
