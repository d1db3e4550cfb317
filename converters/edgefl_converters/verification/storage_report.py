"""Says what storing frozen weights in fewer bytes changed, as a report says it; needs no TensorFlow."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["StorageCost"]


@dataclass(frozen=True)
class StorageCost:
    """Holds what one runtime computes with both files, on made-up data.

    Attributes:
        runtime: its name and version.
        output_error: root mean square difference of the outputs, relative to that of the outputs themselves.
        loss: of the float32 file.
        stored_loss: of the other.
        step_error: of what a step changes of the weights, relative to what it changes with the float32 file; with plain
            SGD the error of the gradient.
        worst_step_error: the same of the weight for which it is largest.
        worst_weight: the name of that.
    """

    runtime: str
    output_error: float
    loss: float
    stored_loss: float
    step_error: float
    worst_step_error: float
    worst_weight: str

    def as_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"{self.runtime}: outputs change by {100 * self.output_error:.2g} % (root mean square, made-up data), "
            f"loss from {self.loss:.4f} to {self.stored_loss:.4f}, what a step changes by "
            f"{100 * self.step_error:.2g} % ({100 * self.worst_step_error:.2g} % of {self.worst_weight})"
        )
