"""Low-rank adapters for the layers that patterns name (Hu et al. 2021, LoRA)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from edgefl.errors import ModelError
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
        InvalidSettingError: a pattern matches nothing.
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
        for layer in able:
            if not layer.lora_enabled:
                added += 1
                _enable(layer, rank, alpha, seed=added)
    return model


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
