"""Low-rank adapters beside frozen weights (Hu et al. 2021, LoRA), as Keras's ``enable_lora`` makes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from edgefl.errors import ModelError
from edgefl_converters.rebuilding import compiled_copy
from edgefl_converters.variable_names import choose, named_variables

__all__ = ["adapter_variables", "base_of_adapters", "with_adapters"]

_ADAPTERS = ("lora_kernel_a", "lora_kernel_b", "lora_embeddings_a", "lora_embeddings_b")
_BASES = ("_kernel", "_embeddings")


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
    variables, added = named_variables(model), 0
    for pattern in targets:
        positions = choose([pattern], variables, "--lora-target", also=lambda each: True)
        matched = [variables[position].layer for position in sorted(positions)]
        able = list({id(layer): layer for layer in matched if hasattr(layer, "enable_lora")}.values())
        if not able:
            kinds = ", ".join(sorted({type(layer).__name__ for layer in matched}))
            raise ModelError(
                f"--lora-target {pattern!r} names no layer that takes adapters, only {kinds}.",
                hint="Dense, EinsumDense, Embedding and convolutions take them, also inside others such as "
                "MultiHeadAttention; train the rest with --trainable.",
            )
        for layer in able:
            if not layer.lora_enabled:
                added += 1
                _enable(layer, rank, alpha, seed=added)
    return model


def adapter_variables(model: Any) -> set[int]:
    """Identities of the variables of all adapters."""
    return _held(model, _ADAPTERS)


def base_of_adapters(model: Any) -> set[int]:
    """Identities of the weights that adapters stand for."""
    return _held(model, _BASES)


def _enable(layer: Any, rank: int, alpha: float | None, *, seed: int) -> None:
    # Keras's own start, but the same one each time: the same input gives the same bytes.
    start = keras.initializers.HeUniform(seed=seed)
    try:
        layer.enable_lora(rank, lora_alpha=alpha, a_initializer=start)
    except Exception as error:
        raise ModelError(
            f"Layer {layer.name!r} ({type(layer).__name__}) takes no adapter: {error}",
            hint="Name other layers with --lora-target.",
        ) from error


def _held(model: Any, attributes: Sequence[str]) -> set[int]:
    layers = model._flatten_layers(include_self=True, recursive=True)
    adapted = [layer for layer in layers if getattr(layer, "lora_enabled", False)]
    held = (getattr(layer, name, None) for layer in adapted for name in attributes)
    return {id(variable) for variable in held if variable is not None}
