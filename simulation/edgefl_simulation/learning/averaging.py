"""Federated averaging with the server optimizer and the weighting that a researcher chooses, as a strategy."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from edgefl.errors import InvalidSettingError
from edgefl_server.aggregation import Cohort, StrategyState, Updates
from edgefl_server.aggregation.averaging import average, equally
from edgefl_server.aggregation.server_optimizers import ServerOptimizer, Sgd
from edgefl_server.aggregation.strategies.fedavg import FedAvg

__all__ = ["Averaging", "ClientWeighting", "ServerOptimizer", "Sgd", "server_optimizer"]


class ClientWeighting(Enum):
    """The amount for which a client counts in the average: that of its examples, or the same as every other."""

    NUM_EXAMPLES = "num_examples"
    UNIFORM = "uniform"


@dataclass(frozen=True, kw_only=True)
class Averaging(FedAvg):
    """`FedAvg` with another server optimizer (Reddi et al. 2021, Algorithm 1), or with equal weights.

    Attributes:
        clients: how much each counts. With ``UNIFORM`` a client without examples counts as one that changed nothing.
    """

    clients: ClientWeighting = ClientWeighting.NUM_EXAMPLES

    def apply(self, state: StrategyState, updates: Updates, cohort: Cohort) -> tuple[StrategyState, dict[str, float]]:
        """See `Strategy`."""
        if self.clients is ClientWeighting.NUM_EXAMPLES:
            return super().apply(state, updates, cohort)
        averages = average(updates, {"delta": equally, "statistics": equally})
        everybody = float(cohort.size(updates))
        delta, statistics = (replace(averages[name], weight=everybody) for name in ("delta", "statistics"))
        change, slots = self.optimizer.step(delta, state.slots)
        return state.moved(change, statistics.mean(), slots)


def server_optimizer(given: ServerOptimizer | Callable[[], Any] | Any) -> ServerOptimizer:
    """The server optimizer that is meant.

    Args:
        given: a `ServerOptimizer`, a Keras optimizer of which the server has the like, or a function without arguments
            that returns one of them; None: just the average.

    Raises:
        InvalidSettingError: the server has no such optimizer.
    """
    if given is None:
        return Sgd()
    found: Any = given if _is_ours(given) or _is_of_keras(given) or not callable(given) else given()
    if _is_ours(found):
        optimizer: ServerOptimizer = found
        return optimizer
    config = found.get_config() if _is_of_keras(found) else {}
    rate = config.get("learning_rate")
    inert = not config.get("momentum") and not any(config.get(name) for name in _WITHOUT)
    if type(found).__name__ != "SGD" or not inert or not isinstance(rate, (int, float)):
        raise InvalidSettingError(
            f"The server has no optimizer like {_described(found, config)}; it has plain SGD.",
            hint="Give learning.Sgd(rate), keras.optimizers.SGD(rate), or an object with the methods of "
            "learning.ServerOptimizer.",
        )
    if not (math.isfinite(rate) and rate > 0):
        raise InvalidSettingError(f"The server's learning rate expects a number above 0, got {rate:g}.")
    # The average itself costs one rounding less.
    return Sgd() if rate == 1 else Sgd(float(rate))


_WITHOUT = ("weight_decay", "clipnorm", "clipvalue", "global_clipnorm", "use_ema", "gradient_accumulation_steps")


def _is_ours(given: Any) -> bool:
    methods = (getattr(given, name, None) for name in ("init", "step"))
    return not isinstance(given, type) and all(map(callable, methods))


def _is_of_keras(given: Any) -> bool:
    return not isinstance(given, type) and callable(getattr(given, "get_config", None))


def _described(found: Any, config: dict[str, Any]) -> str:
    told = {name: config[name] for name in ("momentum", *_WITHOUT) if config.get(name)}
    return type(found).__name__ + (
        f" with {', '.join(f'{name} {value}' for name, value in told.items())}" if told else ""
    )
