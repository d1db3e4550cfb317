"""Functions that somebody decorated with `tf.function` as part of the graph that calls them.

TensorFlow keeps the graph that it once traced of such a function: with any number of rows, from when the model was
built, and with whatever variables and random numbers were there. A model file knows its shapes, so the function is
traced again where it is called, and the user's is left as it was.
"""

from __future__ import annotations

import functools
from typing import Any

import tensorflow as tf
from tensorflow.python.autograph.core import ag_ctx
from tensorflow.python.eager.polymorphic_function import autograph_util
from tensorflow.python.eager.polymorphic_function.polymorphic_function import Function

from edgefl_converters.training_step.keras_rewrites.rewrite import Rewrite

__all__ = ["REWRITE"]


def _inlined(original: Any) -> tuple[Any, ...]:
    @functools.wraps(original)
    def call(function: Any, *args: Any, **named: Any) -> Any:
        if tf.executing_eagerly() or _needs_xla(function):
            return original(function, *args, **named)
        python = function._python_function
        if function._autograph:
            python = autograph_util.py_func_from_autograph(python, function._experimental_autograph_options)
        with ag_ctx.ControlStatusCtx(ag_ctx.Status.UNSPECIFIED):  # Keras switches it off around layers
            return python(*args, **named)

    return (call,)


def _needs_xla(function: Any) -> bool:
    """Whether Keras made it for what TensorFlow's own kernels lack, such as the gradients of grouped convolutions."""
    return bool(function._jit_compile) and function._python_function.__module__.startswith("keras.src.")


REWRITE = Rewrite(Function, ("__call__",), _inlined)
