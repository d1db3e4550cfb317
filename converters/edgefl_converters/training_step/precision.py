"""Models in mixed precision (Micikevicius et al. 2018) as models in float32, in which devices train.

Their variables are float32 already; only what is computed with them is float16 or bfloat16.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
from keras.src.models.functional import Functional

from edgefl.errors import UnsupportedModelError, first_line
from edgefl_converters.models.loading import compiled_with
from edgefl_converters.training_step.rebuilding import rebuild
from edgefl_converters.training_step.specification import inner_optimizer, specify

__all__ = ["in_float32", "mixed_layers"]

_HALF = ("float16", "bfloat16")
_MIXED = frozenset({*_HALF, *(f"mixed_{name}" for name in _HALF)})


_COMPUTE_NOTHING = (keras.layers.InputLayer, keras.Sequential, Functional)
"""They have the policy of the time when they were made, which has no effect."""


def mixed_layers(model: Any) -> dict[str, str]:
    """Layers that compute in fewer bits than their variables have: what they compute in, by name."""
    return {
        layer.name: layer.compute_dtype
        for layer in model._flatten_layers(include_self=True, recursive=True)
        if layer.compute_dtype in _HALF
        and layer.variable_dtype == "float32"
        and not isinstance(layer, _COMPUTE_NOTHING)
    }


@contextlib.contextmanager
def in_float32(model: keras.Model) -> Iterator[keras.Model]:
    """A model that computes in float32 what another computes in mixed precision; inside, new layers do so too.

    Args:
        model: built and compiled.

    Returns:
        The model itself where it is all float32, else a copy, compiled in the same way.

    Raises:
        UnsupportedModelError: Keras cannot copy it.
    """
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")
    try:
        yield _copy(model) if mixed_layers(model) else model
    finally:
        keras.config.set_dtype_policy(before)


def _copy(model: keras.Model) -> keras.Model:
    specification = specify(model, batch_size=1, mixed=True)
    try:
        copy = rebuild(specification, "float32", in_place_of=_MIXED)
        copy.compile(**{**compiled_with(model), "optimizer": inner_optimizer(model.optimizer)})
    except Exception as error:
        raise UnsupportedModelError(
            f"The model computes in mixed precision, devices train in float32, and Keras cannot copy it: "
            f"{first_line(error)}",
            hint="Give module:function that builds it under keras.config.set_dtype_policy('float32') and calls "
            "load_weights, or give its classes a get_config().",
        ) from error
    left = mixed_layers(copy)
    if left:
        name, dtype = next(iter(left.items()))
        raise UnsupportedModelError(
            f"Layer {name!r} computes in {dtype} whatever the policy is, devices train in float32.",
            hint="Do not give it a dtype, or give module:function that builds the model in float32.",
            layer=name,
        )
    return copy
