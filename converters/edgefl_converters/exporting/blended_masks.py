"""Masks of recurrent layers as arithmetic, for inference in integers.

Keras chooses between a step's values and those before by a condition. In int8 the runtimes compute a choice in a part
of its own, and XNNPACK of ai-edge-litert 2.3 refuses the parts between; ``before + mask * (now - before)`` splits
nothing.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

__all__ = ["blended_masks"]

_MODULE: Any = importlib.import_module("keras.src.backend.tensorflow.rnn")  # its package has a function of this name


@contextlib.contextmanager
def blended_masks() -> Iterator[None]:
    """Lets recurrent layers that are traced meanwhile blend where they would choose."""
    original = _MODULE.tf
    _MODULE.tf = _Blending()
    try:
        yield
    finally:
        _MODULE.tf = original


class _Blending:
    """TensorFlow as that module sees it, with another ``where``."""

    def __getattr__(self, name: str) -> Any:
        return getattr(tf, name)

    def where(self, condition: tf.Tensor, now: tf.Tensor, before: tf.Tensor) -> tf.Tensor:
        """Returns what `tf.where` does, to rounding."""
        return before + tf.cast(condition, now.dtype) * (now - before)
