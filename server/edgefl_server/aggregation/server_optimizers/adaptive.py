"""The part that adaptive server optimizers share: Reddi et al. 2021, "Adaptive Federated Optimization", Algorithm 2.

``m ← β₁ m + (1 - β₁) Δ``, ``v`` as each has it, ``w ← w + η m / (√v + τ)``, element by element, from ``m = 0`` and
``v = τ²``, without a correction of the bias.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgefl_server.aggregation.averaging import Average, pieces
from edgefl_server.aggregation.hyperparameters import SMALLEST, check_ranges, setting
from edgefl_server.aggregation.server_optimizers.base import rate

__all__ = ["Adaptive", "decay"]

_M, _V = "server_m", "server_v"


def decay(default: float, of: str) -> float:
    """A setting β₁ or β₂."""
    number, which = ("₁", "first") if of == "m" else ("₂", "second")
    found: float = setting(
        default,
        help=f"The server's decay of the {which} moment",
        lowest=0,
        highest=1,
        usual=(0, 0.99999),
        table=f"β{number}, {default:g} unless given",
    )
    return found


@dataclass(frozen=True)
class Adaptive(ABC):
    """Algorithm 2; see `ServerOptimizer`. The slots ``server_m`` and ``server_v`` are m and v.

    Attributes:
        server_learning_rate: η.
        beta_1: β₁.
        tau: τ, the degree of adaptivity: the smaller, the more.
    """

    server_learning_rate: float = rate(0.1)
    beta_1: float = decay(0.9, "m")
    tau: float = setting(
        1e-3,
        help="The server's degree of adaptivity",
        lowest=SMALLEST,
        usual=(1e-12, 1e3),
        why="With a larger one no weight changes.",
        table="τ, 0.001 unless given",
    )

    def __post_init__(self) -> None:
        check_ranges(self)

    def init(self, size: int) -> dict[str, NDArray[np.float32]]:
        """See `ServerOptimizer`."""
        return {_M: np.zeros(size, np.float32), _V: np.full(size, self.tau**2, np.float32)}

    def step(
        self, average: Average, slots: Mapping[str, NDArray[np.float32]]
    ) -> tuple[NDArray[np.float64], dict[str, NDArray[np.float32]]]:
        """See `ServerOptimizer`."""
        change = average.used_up()
        m_after, v_after = np.empty_like(slots[_M]), np.empty_like(slots[_V])
        for part in pieces(change.size):
            delta = change[part]
            m = self.beta_1 * slots[_M][part].astype(np.float64) + (1 - self.beta_1) * delta
            v = self._second(slots[_V][part].astype(np.float64), np.square(delta))
            change[part] = self.server_learning_rate * m / (np.sqrt(v) + self.tau)
            m_after[part], v_after[part] = m, v
        return change, {_M: m_after, _V: v_after}

    @abstractmethod
    def _second(self, v: NDArray[np.float64], squares: NDArray[np.float64]) -> NDArray[np.float64]:
        """The second moment after the step, from v before it and Δ²."""
