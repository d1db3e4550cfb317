"""GRU layers as one function of a whole sequence, with a gradient of its own, while a model is traced.

Keras's step, differentiated op by op, becomes about 53 ops for each step of a sequence with a mask. Here it is 33: the
update gate and the mask are one factor ``u``, by which ``h' = h - u (h - c)`` moves from the state ``h`` to the
candidate ``c`` (Cho et al. 2014, section 2.3; reset after the product as in cuDNN), and all but one of the gradients
follow from ``u`` times the gradient of ``h'``. A step that the mask leaves out has ``u = 0``. Each op of a model file
costs a device memory, and time to get to it, and the conversion milliseconds.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from keras.src.layers.rnn.gru import GRUCell

from edgefl_converters.training_step.keras_rewrites.recurrence import require_length
from edgefl_converters.training_step.keras_rewrites.rewrite import Rewrite

__all__ = ["REWRITE"]

_JOINED = 5
"""Steps whose part of the weights' gradient is one product: as many tensors as XNNPACK joins."""


def _replacement(original: Any) -> tuple[Any, ...]:
    """Lets Keras compute GRU layers this way, if they have the usual activations."""

    def inner_loop(self: Any, sequences: Any, initial_state: Any, mask: Any, training: Any = False) -> Any:
        first, *_ = keras.tree.flatten(initial_state)
        kept = next((each for each in keras.tree.flatten(mask) if each is not None), None)
        if _is_usual(self, sequences, bool(training)) and (kept is None or _is_zero(first)):
            return _over_time(self, sequences, first, kept, bool(training))
        return original(self, sequences, initial_state, mask, training=training)

    return (inner_loop,)


REWRITE = Rewrite(keras.layers.GRU, ("inner_loop",), _replacement)


def _is_usual(layer: Any, sequences: tf.Tensor, training: bool) -> bool:
    cell = layer.cell
    masks = training and (cell.recurrent_dropout or (cell.dropout and cell.implementation == 1))
    return (
        type(cell) is GRUCell
        and cell.activation is keras.activations.tanh
        and cell.recurrent_activation is keras.activations.sigmoid
        and bool(cell.reset_after)
        and not masks
        and not layer.zero_output_for_mask
        and sequences.dtype.name == cell.compute_dtype == "float32"
        and bool(sequences.shape[1])
    )


def _is_zero(state: tf.Tensor) -> bool:
    """Tells whether a first state is known to be zero: outputs, which begin as zeros under a mask, are then states."""
    known = tf.get_static_value(state)
    return known is not None and not np.any(known)


def _over_time(layer: Any, sequences: tf.Tensor, state: tf.Tensor, mask: Any, training: bool) -> Any:
    """Returns what Keras's ``inner_loop`` returns: the last output, all outputs, the last states."""
    cell, steps = layer.cell, sequences.shape[1]
    require_length(steps)
    if training and cell.dropout:
        sequences = sequences * tf.expand_dims(cell.get_dropout_mask(sequences[:, 0, :]), 1)
    kept = None if mask is None else tf.expand_dims(tf.cast(mask, tf.float32), 2)
    if layer.go_backwards:
        sequences, kept = tf.reverse(sequences, [1]), None if kept is None else tf.reverse(kept, [1])
    scope = f"gradient_tape/{tf.get_current_name_scope()}/"
    of_steps = None if kept is None else tf.unstack(tf.transpose(kept, [1, 0, 2]))
    sequence = _Sequence(of_steps, bool(layer.return_sequences), scope)
    weights = [cell.recurrent_kernel, cell.kernel, *([cell.bias] if cell.use_bias else [])]
    outputs = tf.custom_gradient(sequence.run)(
        tf.transpose(sequences, [1, 0, 2]), state, *(tf.convert_to_tensor(each.value) for each in weights)
    )
    outputs = outputs if isinstance(outputs, (list, tuple)) else [outputs]
    last = outputs[-1]
    return last, tf.stack(outputs, 1) if layer.return_sequences else last, [last]


class _Step(NamedTuple):
    """Holds what the gradient of a step needs: gates, the reset part, the candidate, its distance, ``u``, the state."""

    z: tf.Tensor
    r: tf.Tensor
    reset: tf.Tensor
    candidate: tf.Tensor
    distance: tf.Tensor
    u: tf.Tensor
    before: tf.Tensor


@dataclass(frozen=True)
class _Sequence:
    """Holds what `tf.custom_gradient` makes a function of.

    Attributes:
        mask: for each step 1 where it counts and 0 where the state stays, ``[batch, 1]``; None where all count.
        every: outputs of all steps are wanted, not only the last one.
        scope: name scope of the gradient's ops.
    """

    mask: Sequence[tf.Tensor] | None
    every: bool
    scope: str

    def run(
        self, x: tf.Tensor, h: tf.Tensor, recurrent: tf.Tensor, kernel: tf.Tensor, *bias: tf.Tensor
    ) -> tuple[list[tf.Tensor], Callable[..., list[tf.Tensor]]]:
        """Runs over a sequence.

        Args:
            x: the steps' features, ``[time, batch, features]``.
            h: first state, ``[batch, units]``.
            recurrent: the state's weights for the gates z, r and the candidate, ``[units, 3 * units]``.
            kernel: the features' weights, ``[features, 3 * units]``.
            bias: those of both products, ``[2, 3 * units]``, or none.

        Returns:
            The outputs that are wanted; and the function from their gradients to the arguments'.
        """
        of_x, of_h = tf.unstack(bias[0]) if bias else (None, None)
        weighted = tf.matmul(tf.reshape(x, [-1, x.shape[2]]), kernel)
        weighted = weighted if of_x is None else weighted + of_x
        parts = tf.split(tf.reshape(weighted, [x.shape[0], -1, kernel.shape[1]]), 3, 2)
        steps: list[_Step] = []
        for index, own in enumerate(zip(*map(tf.unstack, parts))):
            inner = tf.matmul(h, recurrent)
            step = self._step(index, own, inner if of_h is None else inner + of_h, h)
            h = h - step.u * step.distance
            steps.append(step)

        def gradient(*upstream: tf.Tensor) -> list[tf.Tensor]:
            with tf.name_scope(self.scope):
                sums, inner_sums, of_first = self._back_through(steps, recurrent, upstream)
                of_kernel, of_recurrent, of_inner_bias, of_features = [], [], [], []
                turned = tf.transpose(kernel)
                for first in range(0, len(steps), _JOINED):
                    here = slice(first, first + _JOINED)
                    some, inner = tf.concat(sums[here], 0), tf.concat(inner_sums[here], 0)
                    states = tf.concat([step.before for step in steps[here]], 0)
                    of_kernel.append(tf.matmul(tf.reshape(x[here], [-1, x.shape[2]]), some, transpose_a=True))
                    of_recurrent.append(tf.matmul(states, inner, transpose_a=True))
                    of_inner_bias.append([tf.reduce_sum(each, 0) for each in (some, inner)])
                    count = len(sums[here])
                    of_features.append(tf.reshape(tf.matmul(some, turned), [count, -1, x.shape[2]]))
                biases = [functools.reduce(tf.add, each) for each in zip(*of_inner_bias)]
                # One by one: a sum of all would become one product of all.
                total = [functools.reduce(tf.add, each) for each in (of_recurrent, of_kernel)]
                return [tf.concat(of_features, 0), of_first, *total, *(tf.stack(biases) for _ in bias)]

        outputs = [*(step.before for step in steps[1:]), h] if self.every else [h]
        return outputs, gradient

    def _step(self, index: int, own: Sequence[tf.Tensor], inner: tf.Tensor, h: tf.Tensor) -> _Step:
        """One step from the weighted features and the weighted state before it."""
        of_z, of_r, of_candidate = tf.split(inner, 3, 1)
        z, r = tf.sigmoid(own[0] + of_z), tf.sigmoid(own[1] + of_r)
        reset = r * of_candidate
        candidate = tf.tanh(own[2] + reset)
        u = 1.0 - z
        return _Step(z, r, reset, candidate, h - candidate, u if self.mask is None else u * self.mask[index], h)

    def _back_through(
        self, steps: Sequence[_Step], recurrent: tf.Tensor, upstream: Sequence[tf.Tensor]
    ) -> tuple[list[tf.Tensor], list[tf.Tensor], tf.Tensor]:
        """The gradients of the weighted features and of the weighted state in each step, and of the first state."""
        of_outputs = list(upstream)
        weights = tf.transpose(recurrent)
        sums: list[tf.Tensor] = []
        inner_sums: list[tf.Tensor] = []
        of_h = of_outputs.pop()
        for step in reversed(steps):
            moved = of_h * step.u
            of_z = moved * (step.distance * step.z)  # u (1 - z) z (h - c): the mask is in u once
            of_candidate = moved * (1.0 - step.candidate * step.candidate)
            of_r = of_candidate * (step.reset * (1.0 - step.r))
            sums.append(tf.concat([of_z, of_r, of_candidate], 1))
            inner_sums.append(tf.concat([of_z, of_r, of_candidate * step.r], 1))
            of_h = of_h - moved + tf.matmul(inner_sums[-1], weights)
            if of_outputs:
                of_h += of_outputs.pop()
        return sums[::-1], inner_sums[::-1], of_h
