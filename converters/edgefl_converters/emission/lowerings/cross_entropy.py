"""Cross-entropy with integer targets, which language models have many of: few tensors of rows times classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from edgefl_converters.emission.registry import Context, lowering
from edgefl_converters.emission.traced_ops import static_shape


@lowering("SparseSoftmaxCrossEntropyWithLogits")
def of_integer_targets(op: Any, inputs: Sequence[tf.Tensor], context: Context) -> Sequence[tf.Tensor]:
    """The loss from the probabilities that its gradient needs anyway: 1 / max p is the sum of exp(logit - max logit).

    TensorFlow's converter makes ten tensors of rows times classes of it; these are three. A target that is no class has
    no logit: its loss is no number.
    """
    logits, targets = inputs
    rows, classes = static_shape(logits)
    targets = tf.cast(targets, tf.int32)
    known = tf.logical_and(targets >= 0, targets < classes)
    probabilities = tf.nn.softmax(logits)
    own = tf.gather_nd(logits, tf.stack([tf.range(rows), tf.where(known, targets, 0)], axis=1))
    loss = tf.reduce_max(logits, axis=1) - own - tf.math.log(tf.reduce_max(probabilities, axis=1))
    loss = tf.where(known, loss, tf.constant(float("nan")))
    return [loss, probabilities - tf.one_hot(targets, classes)]
