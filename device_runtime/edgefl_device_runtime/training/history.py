"""The history that `fit` returns: Keras's, and how much work was done; and the values of an epoch on the way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edgefl.manifest import Metric
from edgefl.metrics import LOSS_STATES, finalise

__all__ = ["History", "RunningLogs"]


@dataclass(repr=False)
class History:
    """The course of one call of `fit`.

    Attributes:
        history: ``loss``, each metric, and with a prefix ``val_`` the same on the validation data: one value per epoch.
        epoch: the numbers of those epochs.
        steps: optimizer steps taken.
        num_examples: rows of the data; where training was stopped early, or took `steps_per_epoch`, at most steps ×
            batch size. It does not depend on the order of the rows, nor on how many were left out of an epoch. Of
            batches from a generator and the like, the rows of the longest epoch.
        states: of the last epoch, what its values were computed from: ``loss_sum``, ``rows`` and every metric's states,
            which add up over devices.
        stopped: why it ended before the last epoch did: ``max_steps``, ``max_seconds``, ``callback``, or ``data`` where
            a generator ran out; else None.
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


class RunningLogs(Mapping[str, float]):
    """Loss and metrics over the batches so far, computed when somebody looks.

    Args:
        metrics: the manifest's.
        loss_sum: the losses of the rows so far, summed.
        rows: how many there were.
        states: of the metrics, summed; kept, so that they must not be changed later.
    """

    def __init__(
        self, metrics: tuple[Metric, ...], loss_sum: float, rows: float, states: Mapping[str, NDArray[np.float64]]
    ) -> None:
        self._metrics, self._loss_sum, self._rows, self._states = metrics, loss_sum, rows, states
        self._values: dict[str, float] | None = None

    def __getitem__(self, name: str) -> float:
        if name == "loss":
            return self._loss_sum / self._rows if self._rows else 0.0
        return self.copy()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(("loss", *(metric.name for metric in self._metrics)))

    def __len__(self) -> int:
        return 1 + len(self._metrics)

    def __repr__(self) -> str:
        return repr(self.copy())

    def copy(self) -> dict[str, float]:
        """The values as a plain dict."""
        if self._values is None:
            sums = dict(zip(LOSS_STATES, (np.array(self._loss_sum), np.array(self._rows)), strict=True))
            self._values = finalise(self._metrics, {**sums, **self._states})
        return dict(self._values)
