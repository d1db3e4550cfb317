"""Holds what both sides of a verification compute, and the same with other last bits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgefl_converters.verification.made_up_batches import Batch
from edgefl_converters.verification.probing import Probe

__all__ = ["Experiment", "disturb"]

_LAST_BITS = 2.0**-22
"""Relative size of the disturbance: about two units in the last place of a float32."""


@dataclass(frozen=True)
class Experiment:
    """Says what both sides compute.

    Attributes:
        initial: the weights that they begin from, by stable name.
        batches: one for each training step; the first one also serves for everything else.
        rows: real rows of the partial batch.
        row_weights: the user's weights of these rows.
        probe: how the gradient is read off.
        rate: learning rate of the training steps.
        proximal_weight: weight of the proximal term times the learning rate, in the steps that have one; 0 where the
            file has none.
        correction: what is added to the gradient in the same steps, by weight; empty where the file adds nothing.
    """

    initial: Mapping[str, NDArray[np.float32]]
    batches: Sequence[Batch]
    rows: int
    row_weights: NDArray[np.float32]
    probe: Probe
    rate: float
    proximal_weight: float = 0.0
    correction: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)

    @property
    def mu(self) -> float:
        """The weight of the proximal term.

        Steps are short, so a weight of ordinary size would hardly be felt after a few.
        """
        return float(np.float32(self.proximal_weight / self.rate))

    @property
    def is_federated(self) -> bool:
        """Tells whether the file can change the gradient for federated algorithms."""
        return bool(self.proximal_weight or self.correction)


def disturb(experiment: Experiment, generator: np.random.Generator, size: float = _LAST_BITS) -> Experiment:
    """The same experiment with other last bits in weights and inputs; ``size`` of them relative to each number."""

    def last_bits(array: NDArray[Any]) -> NDArray[Any]:
        if array.dtype != np.float32:
            return array
        return np.asarray(array * (1.0 + size * generator.uniform(-1.0, 1.0, array.shape)), np.float32)

    return replace(
        experiment,
        initial={name: last_bits(value) for name, value in experiment.initial.items()},
        batches=[
            Batch(tuple(_unless_whole(each, last_bits) for each in batch.inputs), batch.targets, batch.seed)
            for batch in experiment.batches
        ],
    )


def _unless_whole(array: NDArray[Any], change: Callable[[NDArray[Any]], NDArray[Any]]) -> NDArray[Any]:
    """Leaves tokens alone that a model takes as floats."""
    return array if np.array_equal(array, np.round(array)) else change(array)
