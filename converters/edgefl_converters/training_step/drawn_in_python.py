"""Finds layers that draw Python's or numpy's random numbers while they are traced.

A graph keeps what was drawn then, for good: it is neither random in training, nor the same in the next trace of the
same model, so that nothing could be compared with Keras.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
from keras.src.random import seed_generator

from edgefl.errors import UnsupportedModelError

__all__ = ["without_drawing"]


def without_drawing(layer: Any, call: Callable[[], Any]) -> Any:
    """Calls a layer, which must draw nothing outside of the graph; seeds that Keras makes by itself do not count.

    Args:
        layer: that is called.
        call: calls it.

    Raises:
        UnsupportedModelError: it draws.
    """
    before = [_state()]
    make_seed = seed_generator.make_default_seed

    def noted() -> Any:
        drawn = _state() != before[0]
        seed = make_seed()
        before[0] = None if drawn else _state()
        return seed

    seed_generator.make_default_seed = noted
    try:
        result = call()
    finally:
        seed_generator.make_default_seed = make_seed
    if _state() != before[0]:
        raise UnsupportedModelError(
            f"Layer {layer.name!r} ({type(layer).__name__}) draws random numbers in Python, not in the graph: "
            "what it draws while it is traced would stay the same in all steps, and be another in the next file.",
            hint="Draw with keras.random, with a keras.random.SeedGenerator, or leave the layer to the data pipeline.",
        )
    return result


def _state() -> Any:
    kind, keys, *rest = np.random.get_state()
    return random.getstate(), kind, np.asarray(keys).tobytes(), rest
