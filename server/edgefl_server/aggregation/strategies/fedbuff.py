"""FedBuff: Nguyen et al. 2022, "Federated Learning with Buffered Asynchronous Aggregation"."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edgefl_server.aggregation.averaging import by_examples, equally
from edgefl_server.aggregation.hyperparameters import setting
from edgefl_server.aggregation.strategies.base import STRATEGIES
from edgefl_server.aggregation.strategies.fedavg import FedAvg
from edgefl_server.aggregation.updates import Update

__all__ = ["FedBuff"]


@STRATEGIES.register("fedbuff")
@dataclass(frozen=True, kw_only=True)
class FedBuff(FedAvg):
    """Algorithm 1, line 11 to 13: ``w ← w + η_g/K Σ s(τ) Δ``, over the K updates of a fold.

    s(τ) is in the updates already, see `Staleness`; η_g is that of the server optimizer. As in FedAvg another server
    optimizer or rule may be chosen.

    Attributes:
        weighting: as in the paper every update counts the same, whatever its device's number of examples, unless it is
            ``examples``.
    """

    summary: ClassVar[str] = "a buffer, `--schedule buffered`: nobody waits for slow devices (Nguyen et al. 2022)"
    of_buffers: ClassVar[bool] = True

    weighting: str | None = setting(
        None, help="What each device counts for: examples or uniform", shown="uniform", choices=("examples", "uniform")
    )

    def weigh(self, update: Update) -> float:
        """See `Averaging`."""
        return by_examples(update) if self.weighting == "examples" else equally(update)
