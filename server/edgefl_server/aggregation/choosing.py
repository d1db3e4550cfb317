"""From a run's settings to its strategy, and whether its model file can take part in it."""

from __future__ import annotations

from dataclasses import replace

from edgefl.algorithms import check_supports
from edgefl.errors import InvalidSettingError
from edgefl.manifest import ModelManifest
from edgefl_server.aggregation.settings import RunSettings
from edgefl_server.aggregation.strategies import FedAvg, FedDyn, FedProx, FedSGD, Scaffold, Strategy

__all__ = ["settle", "strategy_for"]


def strategy_for(settings: RunSettings, weight_size: int, enrolled: int = 0) -> Strategy:
    """The strategy of a run.

    Args:
        settings: the run's, settled.
        weight_size: elements of the layout's weight section.
        enrolled: devices of the population; needed to finish a round only.
    """
    rate = 1.0 if settings.server_learning_rate is None else settings.server_learning_rate
    strategies: dict[str, Strategy] = {
        "fedavg": FedAvg(settings.max_examples),
        "fedprox": FedProx(settings.max_examples, settings.mu),
        "scaffold": Scaffold(weight_size, enrolled, settings.max_examples, rate),
        "feddyn": FedDyn(weight_size, enrolled, settings.mu, settings.max_examples),
        "fedsgd": FedSGD(rate, settings.max_examples),
    }
    return strategies[settings.strategy]


def settle(settings: RunSettings, manifest: ModelManifest) -> RunSettings:
    """Checks settings against a model file, and fills in what only the file knows.

    Raises:
        InvalidSettingError: the file cannot take part; the hint is the way out.
    """
    if manifest.layout.weight_size == 0:
        raise InvalidSettingError(
            "Every weight of the model stays on its device: there is nothing to merge.",
            hint="Convert the model with a narrower --local.",
        )
    check_supports(manifest, settings.strategy)
    if settings.batch_size > manifest.batch_size:
        raise InvalidSettingError(
            f"--batch-size expects at most the model's {manifest.batch_size}, got {settings.batch_size}.",
            hint="Convert the model with a larger batch size.",
        )
    rate = manifest.learning_rate if settings.learning_rate is None else settings.learning_rate
    if settings.strategy == "scaffold" and not rate > 0:
        raise InvalidSettingError("--strategy scaffold expects a learning rate above 0.")
    if settings.strategy != "fedsgd":
        return settings
    untrained = [each.name for each in manifest.parameters if not each.shared or each.role != "weight"]
    if untrained:
        raise InvalidSettingError(
            f"--strategy fedsgd only moves shared weights; {untrained[0]!r} would stay as it is for ever.",
            hint="Use another strategy, or convert the model without local parameters and moving averages.",
        )
    if settings.server_learning_rate is None:
        return replace(settings, server_learning_rate=manifest.learning_rate)
    return settings
