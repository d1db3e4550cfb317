"""Ops that call Python, which no device has: refused where they are, before what follows lacks a shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from edgefl.errors import UnsupportedModelError
from edgefl_converters.emission.registry import Context, lowering


@lowering("PyFunc", "PyFuncStateless", "EagerPyFunc")
def python_function(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor]:
    """Refuses a function of Python."""
    raise UnsupportedModelError(
        "The model calls a function of Python (tf.numpy_function or tf.py_function), which no device has.",
        hint="Express it with keras.ops, which also gives it a gradient.",
        ops=[op.type],
    )
