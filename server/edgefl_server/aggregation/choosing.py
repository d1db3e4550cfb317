"""From a run's settings to its strategy, and whether its model file can take part in it."""

from __future__ import annotations

import math
from dataclasses import replace

from edgefl.algorithms import check_supports
from edgefl.errors import FormatVersionError, InvalidSettingError
from edgefl.manifest import ModelManifest
from edgefl.metrics import check_finalisers
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
        "fedavg": FedAvg(),
        "fedprox": FedProx(settings.mu),
        "scaffold": Scaffold(weight_size, enrolled, rate),
        "feddyn": FedDyn(weight_size, enrolled, settings.mu),
        "fedsgd": FedSGD(rate),
    }
    return strategies[settings.strategy]


def settle(settings: RunSettings, manifest: ModelManifest) -> RunSettings:
    """Checks settings against a model file, and fills in what only the file knows.

    What every device would decline, or what no operator can want, is refused here, before anybody waits for it.

    Raises:
        InvalidSettingError: the file cannot take part; the hint is the way out.
    """
    settings.require_meaning()
    if manifest.layout.weight_size == 0:
        raise InvalidSettingError(
            "Every weight of the model stays on its device: there is nothing to merge.",
            hint="Convert the model with a narrower --local.",
        )
    check_supports(manifest, settings.strategy)
    _check_batch_size(settings.batch_size, manifest)
    try:
        check_finalisers(manifest.metrics)
    except FormatVersionError as error:
        raise InvalidSettingError(error.message, hint=error.hint) from error
    rate = manifest.learning_rate if settings.learning_rate is None else settings.learning_rate
    if not (math.isfinite(rate) and rate >= 0):
        raise InvalidSettingError(
            f"The model was compiled with the learning rate {rate:g}: every device would diverge.",
            hint="Give a --learning-rate, or convert the model again.",
        )
    if settings.strategy != "fedsgd":
        if not rate > 0:
            raise InvalidSettingError(
                "The model's learning rate is 0, expected one above 0: everything would stay as it is.",
                hint="Give a --learning-rate.",
            )
        return settings
    untrained = [each.name for each in manifest.parameters if not each.shared or each.role != "weight"]
    if untrained:
        raise InvalidSettingError(
            f"--strategy fedsgd only moves shared weights; {untrained[0]!r} would stay as it is for ever.",
            hint="Use another strategy, or convert the model without local parameters and moving averages.",
        )
    if settings.server_learning_rate is None:
        if not rate > 0:
            raise InvalidSettingError("--strategy fedsgd expects a --server-learning-rate above 0: the model's is 0.")
        return replace(settings, server_learning_rate=manifest.learning_rate)
    return settings


def _check_batch_size(size: int, manifest: ModelManifest) -> None:
    if size > manifest.batch_size:
        raise InvalidSettingError(
            f"--batch-size expects at most the model's {manifest.batch_size}, got {size}.",
            hint="Convert the model with a larger batch size.",
        )
    if manifest.mixes_rows and size not in (0, manifest.batch_size):
        raise InvalidSettingError(
            f"--batch-size expects the model's {manifest.batch_size}, got {size}: a layer of it (batch normalisation) "
            "mixes the rows of a batch, so that a smaller one cannot be filled up.",
            hint=f"Leave it out, or convert the model with `--batch-size {size}`.",
        )
