"""LSTM layers as one function of a whole sequence, with a gradient of its own, while a model is traced.

Keras's step, differentiated op by op, becomes about 40 ops for each step of a sequence. Here it is 24: state, features
and bias are multiplied with their weights at once, and so are all gates' derivatives; what the weights get is computed
for five steps at once. Each op of a model file costs a device memory, and time to get to it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
import tensorflow as tf
from keras.src.layers.rnn.lstm import LSTMCell

from edgefl_converters.training_step.keras_rewrites.recurrence import require_length
from edgefl_converters.training_step.keras_rewrites.rewrite import Rewrite

__all__ = ["REWRITE"]

_COLUMNS = 20
"""Rows of a batch from which each is a column of what a step computes. The weights are then on the left of a product,
where XNNPACK takes them as they are; those on the right it packs anew in each step. Its kernels make 32 columns at a
time (8 on ARM), which fewer rows do not fill. For batches of 10, 16, 20 and 32 rows columns take 1.3, 1.1, 1.07 and
0.87 of the time that rows take on ai-edge-litert, and 0.72, 1.0, 0.76 and 0.9 on tflite-runtime 2.14."""

_FEW = 2
"""Features for each row of a batch up to which they are multiplied with their weights in each step, together with the
state (6 features of 10 rows: 0.95 of the time). More of them are multiplied for all steps at once, so that their
weights are not packed in each (64 features of 10 rows: 0.92)."""

_JOINED = 5
"""Steps whose part of the weights' gradient is one product: as many tensors as XNNPACK joins. What it does not take
waits outside of its memory, all steps in a copy too (3 MB for 32 rows and 50 steps)."""


def _replacement(original: Any) -> tuple[Any, ...]:
    """Lets Keras compute LSTM layers this way, if they have the usual activations and there is no mask."""

    def inner_loop(self: Any, sequences: Any, initial_state: Any, mask: Any, training: Any = False) -> Any:
        if all(each is None for each in keras.tree.flatten(mask)) and _is_usual(self, sequences, bool(training)):
            return _over_time(self, sequences, initial_state, bool(training))
        return original(self, sequences, initial_state, mask, training=training)

    return (inner_loop,)


REWRITE = Rewrite(keras.layers.LSTM, ("inner_loop",), _replacement)


def _is_usual(layer: Any, sequences: tf.Tensor, training: bool) -> bool:
    cell = layer.cell
    masks = training and (cell.recurrent_dropout or (cell.dropout and cell.implementation == 1))
    return (
        type(cell) is LSTMCell
        and cell.activation is keras.activations.tanh
        and cell.recurrent_activation is keras.activations.sigmoid
        and not masks
        and sequences.dtype.name == cell.compute_dtype == "float32"
        and bool(sequences.shape[1])
    )


def _over_time(layer: Any, sequences: tf.Tensor, initial_state: Sequence[tf.Tensor], training: bool) -> Any:
    """Returns what Keras's ``inner_loop`` returns: the last output, all outputs, the last states."""
    cell, (rows, steps, _) = layer.cell, sequences.shape
    require_length(steps)
    if training and cell.dropout:
        sequences = sequences * tf.expand_dims(cell.get_dropout_mask(sequences[:, 0, :]), 1)
    if layer.go_backwards:
        sequences = tf.reverse(sequences, [1])
    columns = rows is not None and rows >= _COLUMNS
    scope = f"gradient_tape/{tf.get_current_name_scope()}/"
    sequence = _Sequence(columns, bool(layer.return_sequences), bool(layer.return_state), scope)
    turned = tf.transpose if columns else tf.identity
    weights = [cell.recurrent_kernel, cell.kernel, *([cell.bias] if cell.use_bias else [])]
    *outputs, carry = tf.custom_gradient(sequence.run)(
        tf.transpose(sequences, [1, 2, 0] if columns else [1, 0, 2]),
        *map(turned, initial_state),
        *(tf.convert_to_tensor(each.value) for each in weights),
    )
    last = turned(outputs[-1])
    if not layer.return_sequences:
        return last, last, [last, turned(carry)]
    return last, tf.transpose(tf.stack(outputs), [2, 0, 1] if columns else [1, 0, 2]), [last, turned(carry)]


class _Step(NamedTuple):
    """Holds what the gradient of a step needs: the gates, both terms of the carry, the carry's tanh, the output."""

    i: tf.Tensor
    f: tf.Tensor
    g: tf.Tensor
    o: tf.Tensor
    new: tf.Tensor
    kept: tf.Tensor
    squashed: tf.Tensor
    output: tf.Tensor


@dataclass(frozen=True)
class _Sequence:
    """Holds what `tf.custom_gradient` makes a function of.

    Attributes:
        columns: a step's values are ``[units, batch]``, else ``[batch, units]``.
        every: outputs of all steps are wanted, not only the last one.
        carried: the last carry is wanted.
        scope: name scope of the gradient's ops.
    """

    columns: bool
    every: bool
    carried: bool
    scope: str

    def run(
        self, x: tf.Tensor, h: tf.Tensor, c: tf.Tensor, recurrent: tf.Tensor, kernel: tf.Tensor, *bias: tf.Tensor
    ) -> tuple[list[tf.Tensor], Callable[..., list[tf.Tensor]]]:
        """Runs over a sequence.

        Args:
            x: the steps' features, ``[time, batch, features]``, or ``[time, features, batch]`` in columns.
            h: first state.
            c: first carry.
            recurrent: the state's weights for the gates i, f, g, o, ``[units, 4 * units]``.
            kernel: the features' weights, ``[features, 4 * units]``.
            bias: one, ``[4 * units]``, or none.

        Returns:
            The outputs that are wanted and the last carry; and the function from their gradients to the arguments'.
        """
        units = recurrent.shape[0]
        weights = tf.concat([recurrent, kernel, *(tf.expand_dims(each, 0) for each in bias)], 0)
        if bias:  # a feature that is always 1
            x = tf.concat([x, tf.ones_like(x[:, :1] if self.columns else x[:, :, :1])], 1 + self._axis)
        together = self.columns or kernel.shape[0] <= _FEW * (x.shape[1] or 1)
        if together:
            weights_of_step, own_parts = tf.transpose(weights) if self.columns else weights, tf.unstack(x)
        else:
            weights_of_step, own_parts = recurrent, tf.unstack(_product_of_steps(x, weights[units:]))
        inputs: list[tf.Tensor] = []
        steps: list[_Step] = []
        for own in own_parts:
            inputs.append(self._joined(h, own) if together else h)
            z = self._times(inputs[-1], weights_of_step)
            step, c = self._step(z if together else z + own, c)
            steps.append(step)
            h = step.output

        def gradient(*upstream: tf.Tensor) -> list[tf.Tensor]:
            with tf.name_scope(self.scope):
                sums, of_h, of_c = self._back_through(steps, recurrent, upstream)
                of_weights, of_x = [], []
                for first in range(0, len(steps), _JOINED):
                    here = slice(first, first + _JOINED)
                    some_sums, some_inputs = (self._joined_steps(each[here]) for each in (sums, inputs))
                    if not together:
                        some_inputs = tf.concat([some_inputs, tf.reshape(x[here], [-1, x.shape[2]])], 1)
                    of_weights.append(self._of_weights(some_inputs, some_sums))
                    of_x.append(self._of_features(some_sums, kernel, len(sums[here])))
                last = units + kernel.shape[0]
                # One by one: a sum of all would become one product of all.
                total = functools.reduce(tf.add, of_weights)
                of_each = [total[:units], total[units:last], *(total[last] for _ in bias)]
                return [tf.concat(of_x, 0), of_h, of_c, *of_each]

        outputs = [step.output for step in steps] if self.every else [h]
        return [*outputs, c], gradient

    def _step(self, z: tf.Tensor, c: tf.Tensor) -> tuple[_Step, tf.Tensor]:
        """One step from the weighted inputs of its gates and the carry before it; and the carry after it."""
        # One sigmoid of four gates, of which one is not used, is as fast as three of one.
        i, f, _, o = tf.split(tf.sigmoid(z), 4, self._axis)
        at, size = 2 * i.shape[self._axis], i.shape[self._axis]
        g = tf.tanh(z[at : at + size] if self.columns else z[:, at : at + size])
        new, kept = i * g, f * c
        c = kept + new
        squashed = tf.tanh(c)
        return _Step(i, f, g, o, new, kept, squashed, o * squashed), c

    def _back_through(
        self, steps: Sequence[_Step], recurrent: tf.Tensor, upstream: Sequence[tf.Tensor]
    ) -> tuple[list[tf.Tensor], tf.Tensor, tf.Tensor]:
        """The gradients of the gates' weighted inputs in each step, of the first state and of the first carry."""
        *of_outputs, of_c = upstream
        weights = recurrent if self.columns else tf.transpose(recurrent)
        sums: list[tf.Tensor] = []
        of_h, carried = of_outputs.pop(), self.carried
        for step in reversed(steps):
            through_output = of_h * (step.o - step.output * step.squashed)  # o * (1 - tanh(c)^2)
            of_c = of_c + through_output if carried else through_output
            # i (1 - i) g; f (1 - f) c; (1 - g^2) i; o (1 - o) tanh(c)
            slopes = self._joined(step.new, step.kept, step.i + step.new, step.output)
            slopes *= 1.0 - self._joined(step.i, step.f, step.g, step.o)
            sums.append(self._joined(of_c, of_c, of_c, of_h) * slopes)
            of_c, carried = of_c * step.f, True
            of_h = self._times(sums[-1], weights)
            if of_outputs:
                of_h += of_outputs.pop()
        return sums[::-1], of_h, of_c

    def _of_weights(self, inputs: tf.Tensor, sums: tf.Tensor) -> tf.Tensor:
        """Returns what some steps add to the gradient of the weights, ``[inputs, 4 * units]``."""
        if self.columns:
            return tf.transpose(tf.matmul(sums, tf.transpose(inputs)))
        return tf.matmul(inputs, sums, transpose_a=True)

    def _of_features(self, sums: tf.Tensor, kernel: tf.Tensor, steps: int) -> tf.Tensor:
        """The gradient of some steps' features, ordered as they are."""
        features = kernel.shape[0]
        if self.columns:
            return tf.transpose(tf.reshape(tf.matmul(kernel, sums), [features, steps, -1]), [1, 0, 2])
        return tf.reshape(tf.matmul(sums, tf.transpose(kernel)), [steps, -1, features])

    def _times(self, value: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        return tf.matmul(weights, value) if self.columns else tf.matmul(value, weights)

    def _joined_steps(self, values: Sequence[tf.Tensor]) -> tf.Tensor:
        """Steps beside each other along the axis of the batch."""
        return tf.concat(values, 1 - self._axis)

    def _joined(self, *values: tf.Tensor) -> tf.Tensor:
        return tf.concat(values, self._axis)

    @property
    def _axis(self) -> int:
        """That of units, in a step."""
        return 0 if self.columns else 1


def _product_of_steps(x: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """The steps' features times their weights, ``[time, batch, 4 * units]``, as one product."""
    product = tf.matmul(tf.reshape(x, [-1, x.shape[2]]), weights)
    return tf.reshape(product, [x.shape[0], -1, weights.shape[1]])
