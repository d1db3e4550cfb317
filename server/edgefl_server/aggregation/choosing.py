"""Whether a model file can take part in a run as it is set, and what of the settings only the file knows."""

from __future__ import annotations

import math
from dataclasses import replace

from edgefl.algorithms import check_supports
from edgefl.errors import FormatVersionError, InvalidSettingError
from edgefl.manifest import ModelManifest
from edgefl.metrics import check_finalisers
from edgefl.wire.vocabulary import TaskKind
from edgefl_server.aggregation.hyperparameters import STEPS, SettingError, values_of
from edgefl_server.aggregation.schedules import schedule_for
from edgefl_server.aggregation.settings import RunSettings, strategy_for
from edgefl_server.aggregation.strategies import Strategy
from edgefl_server.aggregation.update_codecs import AUTO, chosen_codec

__all__ = ["settle"]


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
            hint="Convert the model again and keep less of it with `local`.",
        )
    strategy = strategy_for(settings)
    schedule_for(settings)  # before the file: what does not go together does so with no other one
    check_supports(manifest, strategy.algorithm)
    _check_guard(settings, strategy)
    if settings.local_test and strategy.demand.kind is not TaskKind.TRAIN:
        raise SettingError(
            f"{{local_test}} has no meaning with {{strategy}} {settings.strategy}: no device trains.",
            hint="Leave it out, or give {evaluate_every}.",
        )
    _check_batch_size(settings.batch_size, manifest)
    try:
        check_finalisers(manifest.metrics)
    except FormatVersionError as error:
        raise InvalidSettingError(error.message, hint=error.hint) from error
    rate = manifest.learning_rate if settings.learning_rate is None else settings.learning_rate
    if not (math.isfinite(rate) and rate >= 0):
        raise SettingError(
            f"The model was compiled with the learning rate {rate:g}: every device would diverge.",
            hint="Give a {learning_rate}, or convert the model again.",
        )
    if "learning_rate" not in strategy.unused and rate < STEPS[0]:
        raise SettingError(
            f"The model's learning rate is {rate:g}, expected one above 0: everything would stay as it is.",
            hint="Give a {learning_rate}.",
        )
    if settings.codec == AUTO:
        settings = replace(settings, codec=chosen_codec(manifest.layout.weight_size, robust=strategy.is_robust))
    _check_metric(settings, manifest)
    if settings.changes_learning_rate and settings.learning_rate is None:
        settings = replace(settings, learning_rate=rate)  # a share of what only the file says is none
    settings.check_last_rate(settings.rounds)
    schedule_for(settings)
    settled = strategy.settled(manifest, rate)
    return settings if settled is strategy else replace(settings, hyperparameters=values_of(settled))


def _check_guard(settings: RunSettings, strategy: Strategy) -> None:
    """Refuses what holds off nobody where it was taken to hold off somebody."""
    count = settings.effective_minimum
    if settings.makes_weights and count < strategy.guards_from:
        raise SettingError(
            f"{{strategy}} {settings.strategy}, as it is set, takes a quarter of a fold's devices to be bad, as far as "
            f"it bears so many, and among {count} it bears none: it would hold off nobody.",
            hint=f"Ask for {strategy.guards_from} devices or more, or say how many may be bad: {{byzantine}}.",
        )


def _check_metric(settings: RunSettings, manifest: ModelManifest) -> None:
    known = ("loss", *(metric.name for metric in manifest.metrics))
    if settings.patience and settings.patience_metric not in known:
        raise SettingError(
            f"{{patience_metric}} expects one of the model's {', '.join(known)}, got {settings.patience_metric!r:.80}."
        )


def _check_batch_size(size: int, manifest: ModelManifest) -> None:
    if size > manifest.batch_size:
        raise SettingError(
            f"{{batch_size}} expects at most the model's {manifest.batch_size}, got {size}.",
            hint="Convert the model again with a larger `batch_size`.",
        )
    if manifest.mixes_rows and size not in (0, manifest.batch_size, *manifest.further_batch_sizes):
        raise SettingError(
            f"{{batch_size}} expects the model's {manifest.batch_size}, got {size}: a layer of it (batch "
            "normalisation) or its loss mixes the rows of a batch, so that a smaller one cannot be filled up.",
            hint=f"Leave it out, or convert the model again with `batch_size={size}`.",
        )
