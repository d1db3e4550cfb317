"""FedProx, SCAFFOLD, FedDyn and FedSGD as their papers write them, in float64, on the model ``federated``.

The model (tests/build_models.py): 20 numbers, a dense layer of 16 with tanh, one of 5 with softmax; cross-entropy and
plain SGD.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgefl_device_runtime.training.randomness import row_order

__all__ = ["BATCH", "RATE", "SIZE", "LocalData", "feddyn", "fedprox", "gradient", "probabilities", "scaffold"]

Vector = NDArray[np.float64]
BATCH, RATE = 8, 0.1
INPUTS, HIDDEN, CLASSES = 20, 16, 5
BODY = INPUTS * HIDDEN + HIDDEN
SIZE = BODY + HIDDEN * CLASSES + CLASSES


@dataclass(frozen=True)
class LocalData:
    """One device's rows, and in which order it visits them."""

    x: NDArray[np.float32]
    y: NDArray[np.int32]
    seed: int
    epochs: int

    def batches(self) -> Iterator[tuple[Vector, NDArray[np.int32]]]:
        for epoch in range(self.epochs):
            order = row_order(len(self.x), self.seed, epoch)
            for start in range(0, len(order), BATCH):
                rows = order[start : start + BATCH]
                yield self.x[rows].astype(np.float64), self.y[rows]


def _hidden(w: Vector, x: NDArray) -> Vector:
    return np.tanh(x @ w[: INPUTS * HIDDEN].reshape(INPUTS, HIDDEN) + w[INPUTS * HIDDEN : BODY])


def probabilities(w: Vector, x: NDArray) -> Vector:
    """Of the classes, ``[rows, CLASSES]``."""
    head = w[BODY:-CLASSES].reshape(HIDDEN, CLASSES)
    scores = _hidden(w, x) @ head + w[-CLASSES:]
    exponents = np.exp(scores - scores.max(axis=1, keepdims=True))
    return exponents / exponents.sum(axis=1, keepdims=True)


def gradient(w: Vector, x: NDArray, y: NDArray) -> Vector:
    """Of the mean loss over the rows."""
    head = w[BODY:-CLASSES].reshape(HIDDEN, CLASSES)
    hidden = _hidden(w, x)
    error = (probabilities(w, x) - np.eye(CLASSES)[y]) / len(x)
    back = (error @ head.T) * (1 - hidden**2)
    return np.concatenate([(x.T @ back).ravel(), back.sum(0), (hidden.T @ error).ravel(), error.sum(0)])


def descend(w: Vector, data: LocalData, direction: Callable[[Vector, Vector], Vector]) -> tuple[Vector, int]:
    """Local SGD; `direction` makes of the weights and a batch's gradient what is stepped along. Also the steps."""
    steps = 0
    for x, y in data.batches():
        w = w - RATE * direction(w, gradient(w, x, y))
        steps += 1
    return w, steps


def fedprox(received: Vector, data: LocalData, mu: float) -> Vector:
    """Li et al. 2020, section 3.2: SGD on F_k(w) + mu/2 |w - w_t|²."""
    return descend(received, data, lambda w, g: g + mu * (w - received))[0]


def scaffold(x: Vector, c: Vector, c_i: Vector, data: LocalData) -> tuple[Vector, Vector]:
    """Karimireddy et al. 2020, Algorithm 1, lines 7 to 13 with option II; y_i and c_i⁺."""
    y, steps = descend(x, data, lambda _, g: g - c_i + c)
    return y, c_i - c + (x - y) / (steps * RATE)


def feddyn(received: Vector, h: Vector, data: LocalData, alpha: float) -> tuple[Vector, Vector]:
    """Acar et al. 2021, Algorithm 1: SGD on L_k(w) - <h, w> + alpha/2 |w - w_t|²; w and the new h."""
    w, _ = descend(received, data, lambda w, g: g - h + alpha * (w - received))
    return w, h - alpha * (w - received)
