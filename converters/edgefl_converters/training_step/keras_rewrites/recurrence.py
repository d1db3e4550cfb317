"""Recurrent layers as one copy of their step after another, while a model is traced.

Keras runs a recurrent layer in a loop over time, whose gradient no TFLite runtime can express. A model file knows the
length of its sequences, so the loop is written out: without it the runtimes are also several times faster.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
from keras.src import backend

from edgefl.errors import UnsupportedModelError
from edgefl_converters.training_step.keras_rewrites.rewrite import Rewrite

__all__ = ["LONGEST", "REWRITE", "require_length"]

LONGEST = 512
"""Most steps that a recurrent layer is written out for. A GRU of 200 steps is 9,000 ops, which take a minute to
convert, an LSTM half of that; tflite-runtime 2.14 needs memory and time to load that grow with the square of their
number."""


def _replacement(original: Any) -> tuple[Any, ...]:
    """Lets Keras write its recurrent layers out, whether or not they were made with ``unroll=True``."""

    def rnn(
        step_function: Any,
        inputs: Any,
        initial_states: Any,
        go_backwards: bool = False,
        mask: Any = None,
        constants: Any = None,
        unroll: bool = False,
        input_length: Any = None,
        time_major: bool = False,
        **settings: Any,
    ) -> Any:
        axis = 0 if time_major else 1
        require_length(keras.tree.flatten(inputs)[0].shape[axis])
        if go_backwards and not unroll:
            # Not left to Keras: written out, it forgets to reverse the mask of the outputs (3.15). Whoever asks for
            # ``unroll=True`` gets that, as in Keras.
            inputs = keras.tree.map_structure(lambda each: tf.reverse(each, [axis]), inputs)
            mask = None if mask is None else tf.reverse(tf.cast(mask, tf.bool), [axis])
        if mask is not None and len(mask.shape) > 2 and not unroll:
            settings["time_major"] = time_major
            return _over_places(step_function, inputs, initial_states, mask, constants, **settings)
        return original(
            step_function,
            inputs,
            initial_states,
            go_backwards=go_backwards and unroll,
            mask=mask,
            constants=constants,
            unroll=True,
            time_major=time_major,
            **settings,
        )

    return (rnn,)


REWRITE = Rewrite(backend, ("rnn",), _replacement)


def _over_places(
    step_function: Any,
    inputs: Any,
    initial_states: Any,
    mask: Any,
    constants: Any,
    *,
    time_major: bool,
    zero_output_for_mask: bool = False,
    return_all_outputs: bool = True,
) -> Any:
    """Steps under a mask that has places too, as of images behind Masking; written out, Keras (3.15) repeats it."""
    axis = 0 if time_major else 1
    steps = zip(*(tf.unstack(each, axis=axis) for each in keras.tree.flatten(inputs)), strict=True)
    states, output, outputs = list(initial_states), None, []
    for given, kept in zip(steps, tf.unstack(tf.cast(mask, tf.bool), axis=axis), strict=True):
        step = keras.tree.pack_sequence_as(inputs, list(given))
        found, new = step_function(step, (*states, *(constants or ())))
        before = tf.zeros_like(found) if output is None or zero_output_for_mask else output
        output = _where(kept, found, before)
        states = [_where(kept, one, other) for one, other in zip(new, states, strict=True)]
        outputs.append(output)
    stacked = tf.stack(outputs if return_all_outputs else outputs[-1:], axis=axis)
    return output, stacked, states


def _where(mask: tf.Tensor, one: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
    more = [1] * (one.shape.rank - mask.shape.rank)
    return tf.where(tf.reshape(mask, [*mask.shape.as_list(), *more]), one, other)


def require_length(length: int | None) -> None:
    """Checks that a recurrent layer over so many steps can be written out.

    Raises:
        UnsupportedModelError: there are more than `LONGEST`.
    """
    if length is None or length <= LONGEST:
        return
    raise UnsupportedModelError(
        f"A recurrent layer runs over {length} steps; up to {LONGEST} can be trained on devices.",
        hint="Train on shorter windows, or shorten the sequence before that layer with Conv1D(strides=...) or pooling.",
    )
