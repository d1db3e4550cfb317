"""FedNova: Wang et al. 2020, "Tackling the Objective Inconsistency Problem in Heterogeneous Federated Optimization"."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from edgefl.manifest import ModelManifest
from edgefl_server.aggregation.hyperparameters import SettingError, setting
from edgefl_server.aggregation.strategies.base import STRATEGIES, Strategy
from edgefl_server.aggregation.strategies.fedavg import FedAvg
from edgefl_server.aggregation.updates import Update

__all__ = ["FedNova"]


@STRATEGIES.register("fednova")
@dataclass(frozen=True, kw_only=True)
class FedNova(FedAvg):
    """`FedAvg` of updates that are divided by how far their device could go (equations 11 and 12).

    ``w + τ Σ pₖ Δₖ / ‖aₖ‖₁`` with ``pₖ = nₖ / Σ nₖ`` and ``τ = Σ pₖ ‖aₖ‖₁``, so that it is FedAvg where all are alike.
    ``‖a‖₁`` is the number of local steps of plain SGD, and with momentum ρ, which is 0 at the beginning of each task,
    ``(s - ρ (1 - ρˢ) / (1 - ρ)) / (1 - ρ)`` of s steps (section 4.1). How many steps it made is a device's word: in τ
    none counts for more than ten times the median.

    Attributes:
        local_momentum: ρ; None: the model's.
    """

    summary: ClassVar[str] = (
        "unlike numbers of local steps: who makes many no longer pulls the average (Wang et al. 2020)"
    )
    model: ClassVar[str] = "SGD with a constant learning rate, with or without momentum"

    local_momentum: float | None = setting(
        None,
        help="The momentum of the devices' SGD",
        shown="the model's",
        lowest=0,
        highest=0.9999,
        table="ρ, the model's unless given",
    )

    def settled(self, manifest: ModelManifest, learning_rate: float) -> Strategy:
        """See `Strategy`."""
        optimizer: dict[str, Any] = manifest.optimizer if isinstance(manifest.optimizer, dict) else {}
        config: dict[str, Any] = optimizer.get("config") or {}
        found = ""
        if optimizer.get("class_name") != "SGD":
            found = f"the optimizer {optimizer.get('class_name')!s}"
        elif not isinstance(config.get("learning_rate"), (int, float)):
            found = "a learning rate that changes"
        elif config.get("nesterov"):
            found = "Nesterov's momentum"
        if found:
            raise SettingError(
                f"{{strategy}} fednova expects SGD with a constant learning rate, the model was compiled with {found}.",
                hint="Use fedavg, or compile the model with keras.optimizers.SGD and convert it again.",
            )
        return self if self.local_momentum is not None else replace(self, local_momentum=config.get("momentum") or 0.0)

    def length(self, update: Update) -> float:
        """See `Averaging`: ``‖a‖₁``."""
        steps, rho = max(1, update.steps), self.local_momentum or 0.0
        return (steps - rho * (1 - rho**steps) / (1 - rho)) / (1 - rho)
