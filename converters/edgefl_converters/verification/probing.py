"""Knows where the first step of an optimizer shows the gradient, in a model file that only has a training step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Probe"]

_HUGE = 2.0**20
"""Makes SGD's step so much larger than the weights that adding them costs no digits; a power of two costs none."""


@dataclass(frozen=True)
class Probe:
    """Reads a gradient off one training step.

    SGD moves the weights by the gradient (with or without momentum, in its first step). Adaptive optimizers divide the
    step by the gradient's size, but their slots hold it (Adam's first moment is ``(1 - beta_1) x gradient``).

    Attributes:
        rate: learning rate of the step.
        by_weights: True where the weights show the gradient, False where the slots do.
    """

    rate: float
    by_weights: bool

    @classmethod
    def of(cls, optimizer: str, compiled_rate: float, has_slots: bool) -> Probe:
        """Chooses the probe for an optimizer, by the name of its Keras class."""
        if optimizer == "SGD":
            return cls(_HUGE, True)
        return cls(compiled_rate, not has_slots)

    def reveal(
        self, moved: Mapping[str, NDArray[np.float64]], slots: Mapping[str, NDArray[Any]], statistics: frozenset[str]
    ) -> dict[str, NDArray[np.float64]]:
        """Returns what one step shows, by the name of a parameter or slot, float64.

        Args:
            moved: parameter to how far it moved in the step.
            slots: optimizer state after the step.
            statistics: names of the parameters that no gradient moves; their movement is shown as it is.
        """
        shown = {name: change for name, change in moved.items() if name in statistics}
        if self.by_weights:
            shown.update((name, -change / self.rate) for name, change in moved.items() if name not in statistics)
        else:
            shown.update((name, np.asarray(value, np.float64)) for name, value in slots.items())
        return shown
