"""The default against bad devices: a norm bound, then mixing of nearest neighbours, then a trimmed mean.

Allouah et al. 2023, "Fixing by Mixing" (arXiv 2302.01772), find this mixing before a trimmed mean the best of the known
rules where honest devices have unlike data; the bound keeps single updates from being large before that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edgefl_server.aggregation.hyperparameters import part
from edgefl_server.aggregation.pre_aggregation import PRE_AGGREGATORS, PreAggregator
from edgefl_server.aggregation.rules import RULES, Rule
from edgefl_server.aggregation.strategies.base import STRATEGIES
from edgefl_server.aggregation.strategies.fedavg import FedAvg

__all__ = ["Robust"]


@STRATEGIES.register("robust")
@dataclass(frozen=True, kw_only=True)
class Robust(FedAvg):
    """`FedAvg` with other parts unless others are chosen."""

    summary: ClassVar[str] = "some devices may be bad: `norm-bound`, `nnm`, `trimmed-mean` (Allouah et al. 2023)"

    pre_aggregation: tuple[PreAggregator, ...] = part(
        PRE_AGGREGATORS,
        "norm-bound,nnm",
        help="What is done to updates before the rule, divided by commas: {names}.",
        several=True,
    )
    rule: Rule = part(RULES, "trimmed-mean", help="What makes one update of all: {names}.")
