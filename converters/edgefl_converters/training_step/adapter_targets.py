"""Low-rank adapters for the layers that patterns name (Hu et al. 2021, LoRA)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from edgefl.errors import InvalidSettingError, ModelError
from edgefl_converters.models.adapter_layers import matrix_of
from edgefl_converters.models.named_model import NamedModel
from edgefl_converters.models.variable_patterns import choose
from edgefl_converters.training_step.rebuilding import compiled_copy

__all__ = ["with_adapters"]


def with_adapters(model: Any, rank: int, alpha: float | None, targets: Sequence[str], *, own: bool) -> Any:
    """A model in which the layers that patterns name have adapters.

    Args:
        model: built and compiled.
        rank: of the adapters.
        alpha: they count ``alpha / rank`` times; once if None.
        targets: patterns, see `FineTuning`.
        own: True if the adapters may go into this model, else they go into a copy of it.

    Raises:
        InvalidSettingError: a pattern matches nothing, or no layer whose weight could have so high a rank.
        ModelError: none of the layers that a pattern names takes adapters, or Keras refuses.
    """
    if not own:
        model = compiled_copy(model)
    variables, added = NamedModel(model).described, 0
    for pattern in targets:
        positions = choose([pattern], variables, "`lora_targets`", also=lambda each: True)
        matched = [variables[position].layer for position in sorted(positions)]
        able = list({id(layer): layer for layer in matched if hasattr(layer, "enable_lora")}.values())
        if not able:
            kinds = ", ".join(sorted({type(layer).__name__ for layer in matched}))
            raise ModelError(
                f"`lora_targets` {pattern!r} names no layer that takes adapters, only {kinds}.",
                hint="Dense, EinsumDense, Embedding and convolutions take them, also inside others such as "
                "MultiHeadAttention; train the rest with `trainable`.",
            )
        _require_low_rank(pattern, able, rank)
        for layer in able:
            if not layer.lora_enabled:
                added += 1
                _enable(layer, rank, alpha, seed=added)
    return model


def _require_low_rank(pattern: str, able: Sequence[Any], rank: int) -> None:
    """Refuses adapters that are larger than what they would save, in all of some layers."""
    matrices = {layer.name: matrix_of(layer) for layer in able}
    highest = max(map(min, matrices.values()))
    if rank > highest:
        shown = ", ".join(f"{name} ({rows} x {columns})" for name, (rows, columns) in list(matrices.items())[:3])
        raise InvalidSettingError(
            f"`lora_rank` {rank} is above the rank that any weight of `lora_targets` {pattern!r} can have, {highest}: "
            f"{shown}{' and more' if len(matrices) > 3 else ''}.",
            hint=f"Take a rank of at most {highest}, 2 to 16 as a rule, or train such a layer whole with `trainable`.",
        )


def _enable(layer: Any, rank: int, alpha: float | None, *, seed: int) -> None:
    # Keras's own start, but the same one each time: the same input gives the same bytes.
    start = keras.initializers.HeUniform(seed=seed)
    try:
        layer.enable_lora(rank, lora_alpha=alpha, a_initializer=start)
    except Exception as error:
        raise ModelError(
            f"Layer {layer.name!r} ({type(layer).__name__}) takes no adapter: {error}",
            hint="Name other layers with `lora_targets`.",
        ) from error
