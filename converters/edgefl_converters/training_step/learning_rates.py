"""Says how the learning rate that is an input of each step meets the one that a model was compiled with.

A plain learning rate is replaced. A schedule, and a MultiOptimizer with several learning rates, keep what they are
compiled with and are multiplied: there 1.0 means "as compiled".
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import keras

__all__ = ["compiled_learning_rate", "is_factor", "learning_rate_of_steps", "unscaled"]


def is_factor(optimizer: Any) -> bool:
    """Tells whether the learning rate of a step multiplies what the optimizer is compiled with."""
    return len(_inner(optimizer)) > 1 or not isinstance(_inner(optimizer)[0]._learning_rate, keras.Variable)


def compiled_learning_rate(optimizer: Any) -> float:
    """The learning rate of a step that trains as compiled."""
    if is_factor(optimizer):
        return 1.0
    # The shortest decimal that is the same float32: 0.1, not 0.10000000149.
    return float(str(keras.ops.convert_to_numpy(_inner(optimizer)[0]._learning_rate)))


@contextlib.contextmanager
def learning_rate_of_steps(optimizer: Any, rate: Any) -> Iterator[None]:
    """Lets an optimizer apply gradients with a learning rate that is given from outside.

    Args:
        optimizer: of Keras.
        rate: a scalar tensor or variable; see `is_factor`.
    """
    factor = is_factor(optimizer)
    inner = _inner(optimizer)
    for each in inner:
        own = each._get_current_learning_rate
        each._get_current_learning_rate = (lambda own=own: own() * rate) if factor else lambda: rate
    try:
        yield
    finally:
        for each in inner:
            del each._get_current_learning_rate


@contextlib.contextmanager
def unscaled(optimizer: Any) -> Iterator[None]:
    """Lets an optimizer take gradients as they are, also one that expects those of a scaled loss.

    It would divide them by its ``loss_scale_factor`` again, which float32 has no need of.
    """
    factor = optimizer.loss_scale_factor
    optimizer.loss_scale_factor = None
    try:
        yield
    finally:
        optimizer.loss_scale_factor = factor


def _inner(optimizer: Any) -> Sequence[Any]:
    if isinstance(optimizer, keras.optimizers.MultiOptimizer):
        return list(optimizer.optimizers)
    return [optimizer]
