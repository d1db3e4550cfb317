"""The history that `fit` returns: Keras's, and how much work was done."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

__all__ = ["History"]


@dataclass(repr=False)
class History:
    """The course of one call of `fit`.

    Attributes:
        history: ``loss``, each metric, and with a prefix ``val_`` the same on the validation data: one value per epoch.
        epoch: the numbers of those epochs.
        steps: optimizer steps taken.
        num_examples: rows of the data; where training was stopped early, at most steps × batch size. It does not depend
            on the order of the rows, nor on how many were left out of an epoch.
        states: of the last epoch, what its values were computed from: ``loss_sum``, ``rows`` and every metric's states,
            which add up over devices.
        stopped: why it ended before the last epoch did: ``max_steps``, ``max_seconds`` or ``callback``; else None.
    """

    history: dict[str, list[float]] = field(default_factory=dict)
    epoch: list[int] = field(default_factory=list)
    steps: int = 0
    num_examples: int = 0
    states: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    stopped: str | None = None

    def __repr__(self) -> str:
        latest = "".join(f", {name} {values[-1]:.4f}" for name, values in self.history.items() if values)
        return f"<History of {len(self.epoch)} epochs: {self.steps} steps{latest}>"

    def append(self, epoch: int, logs: dict[str, float]) -> None:
        """Adds one epoch's values."""
        self.epoch.append(epoch)
        for name, value in logs.items():
            self.history.setdefault(name, []).append(value)
