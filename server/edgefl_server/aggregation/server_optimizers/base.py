"""The protocol of server optimizers. Pure: values in, values out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgefl_server.aggregation.averaging import Average

__all__ = ["ServerOptimizer"]


class ServerOptimizer(Protocol):
    """The questions that a strategy asks its server optimizer."""

    def init(self, size: int) -> dict[str, NDArray[np.float32]]:
        """Its slots before the first step, by name.

        Args:
            size: elements of the weight section, of every slot too.
        """
        ...

    def step(
        self, average: Average, slots: Mapping[str, NDArray[np.float32]]
    ) -> tuple[NDArray[np.float64], dict[str, NDArray[np.float32]]]:
        """Computes by how much the weights move.

        Args:
            average: of the updates' deltas, ``[size]``.
            slots: its own, as the step before left them.

        Returns:
            What is to be added to the weights, float64 ``[size]``, and its slots after the step.
        """
        ...
