"""Makes exactly that trainable in a Keras model what a `FineTuning` says, and puts everything back afterwards."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from edgefl.errors import InvalidSettingError, ModelError
from edgefl_converters.models.adapter_layers import adapted_weights, adapter_variables
from edgefl_converters.models.named_model import NamedModel, NamedVariable
from edgefl_converters.models.variable_patterns import choose
from edgefl_converters.settings.fine_tuning import FineTuning
from edgefl_converters.training_step.adapter_targets import with_adapters

__all__ = ["fine_tuned"]

_BIASES = ("bias", "beta", "recurrent_bias")


@contextlib.contextmanager
def fine_tuned(model: Any, wanted: FineTuning, *, own: bool = False) -> Iterator[NamedModel]:
    """A compiled model in which only what is wanted is trainable, with its names.

    Args:
        model: built and compiled.
        wanted: what is to be trained.
        own: True if nobody else has the model, so that adapters may be added to it; else they go into a copy. What is
            trainable is put back afterwards.

    Raises:
        InvalidSettingError: a pattern matches nothing, or nothing would be trained.
        ModelError: the model cannot be copied, or a layer takes no adapter.
    """
    if wanted.lora_rank is not None:
        model = with_adapters(model, wanted.lora_rank, wanted.lora_alpha, wanted.lora_targets, own=own)
    named = NamedModel(model)
    if wanted.is_default:
        yield named
        return
    before = _flags(model)
    try:
        _train_only(model, _selected(named, wanted))
        yield named
    finally:
        for thing, flag in before:
            thing._trainable = flag


def _selected(named: NamedModel, wanted: FineTuning) -> set[int]:
    """Identities of the variables to train, and of the statistics of layers that have nothing else."""
    model, variables = named.model, named.described
    weights, statistics = _could_be_trained(model), _statistics_alone(model)

    def learns(each: NamedVariable) -> bool:
        return id(each.variable) in weights | statistics

    chosen: set[int] = set()
    if wanted.trainable:
        chosen |= choose(wanted.trainable, variables, "`trainable`", also=learns)
    if wanted.last_layers is not None:
        first = _first_of_last_layers(variables, wanted.last_layers, weights)
        chosen |= {position for position, each in enumerate(variables) if each.index >= first and learns(each)}
    if wanted.lora_rank is not None:
        adapters = adapter_variables(model)
        chosen |= {position for position, each in enumerate(variables) if id(each.variable) in adapters}
    elif not wanted.trainable and wanted.last_layers is None:
        trained = {id(each) for each in model.trainable_variables}
        trained |= {id(each.variable) for each in variables if each.layer.trainable} & statistics
        chosen |= {position for position, each in enumerate(variables) if id(each.variable) in trained}
    if wanted.frozen:
        chosen -= choose(wanted.frozen, variables, "`frozen`", also=learns)
    if wanted.biases_only:
        biases = {position for position, each in enumerate(variables) if each.variable.name in _BIASES}
        if chosen and not chosen & biases:
            raise ModelError(
                "Nothing is left to train: no trainable layer has a bias.",
                hint="Leave `biases_only` out, or choose layers that have biases.",
            )
        chosen &= biases
    found = {id(variables[position].variable) for position in chosen}
    if not found & weights:
        raise InvalidSettingError(
            "Everything is frozen: nothing would be trained.",
            hint="Freeze less, or say what is to be trained (`trainable`, `last_layers`).",
        )
    return found


def _first_of_last_layers(variables: Sequence[NamedVariable], count: int, weights: set[int]) -> int:
    layers = sorted({each.index for each in variables if id(each.variable) in weights})
    if count > len(layers):
        raise InvalidSettingError(
            f"`last_layers` is {count}, but the model has {len(layers)} layers with weights.",
            hint="Leave it out to train all of them.",
        )
    return layers[-count]


def _could_be_trained(model: Any) -> set[int]:
    """Weights of all layers, whether they are trainable now or not; no statistics, and no weights behind adapters."""
    weights = {id(each) for layer in _all_layers(model) for each in layer._trainable_variables}
    return (weights | adapter_variables(model)) - adapted_weights(model)


def _statistics_alone(model: Any) -> set[int]:
    """Statistics of layers without weights, which are chosen as weights are: BatchNormalization without an offset."""
    layers = [layer for layer in _all_layers(model) if not layer._trainable_variables]
    return {id(each) for layer in layers for each in layer._non_trainable_variables}


def _train_only(model: Any, chosen: set[int]) -> None:
    weights = _could_be_trained(model)
    for layer in _all_layers(model):
        own = {id(each) for each in layer.weights}
        layer._trainable = not own or bool(own & chosen)
    for variable in model.variables:
        variable.trainable = id(variable) in chosen & weights


def _flags(model: Any) -> list[tuple[Any, bool]]:
    return [(each, each._trainable) for each in (*_all_layers(model), *model.variables)]


def _all_layers(model: Any) -> list[Any]:
    return list(model._flatten_layers(include_self=True, recursive=True))
