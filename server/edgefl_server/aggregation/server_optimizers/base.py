"""The protocol of server optimizers, and their registry. Pure: values in, values out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgefl.errors import InvalidSettingError
from edgefl.plugins import Registry
from edgefl_server.aggregation.averaging import Average
from edgefl_server.aggregation.hyperparameters import SMALLEST, STEP_HINT, STEPS, setting

__all__ = ["SERVER_OPTIMIZERS", "ServerOptimizer", "rate"]


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
            average: of the updates' deltas, ``[size]``; it is used up.
            slots: its own among others', as the step before left them; they stay as they are.

        Returns:
            What is to be added to the weights, float64 ``[size]``, and its own slots after the step.
        """
        ...


def rate(default: float | None, shown: str = "") -> Any:
    """The setting that is the server's learning rate η."""
    return setting(
        default,
        help="The server's own step",
        shown=shown or f"{default:g}",
        lowest=SMALLEST,
        usual=STEPS,
        why=STEP_HINT,
        table=f"η, {shown or f'{default:g}'} unless given",
    )


def _check(name: str, entry: Any) -> None:
    if not (isinstance(entry, type) and "__dataclass_fields__" in vars(entry)):
        raise InvalidSettingError("it is no dataclass.")
    lacking = [method for method in ("init", "step") if not callable(getattr(entry, method, None))]
    if lacking:
        raise InvalidSettingError(f"{entry.__name__} lacks {', '.join(lacking)}.")


SERVER_OPTIMIZERS: Registry[type[ServerOptimizer]] = Registry(
    "server optimizer", "edgefl.server_optimizers", check=_check
)
"""All server optimizers by the name that `--server-optimizer` takes."""
