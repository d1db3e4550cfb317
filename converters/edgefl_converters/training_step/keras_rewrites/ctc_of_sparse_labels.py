"""CTC of sparse labels, as ``ctc_batch_cost`` of Keras 2 has it, as that of dense ones, while a model is traced.

Where in a batch the labels lie has to be known before: every row has as many labels as its array is long.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.python.ops import ctc_ops, gen_ctc_ops

from edgefl.errors import UnsupportedModelError
from edgefl_converters.training_step.keras_rewrites.rewrite import Rewrite

__all__ = ["REWRITE"]


def _replacement(original: Any) -> tuple[Any, ...]:
    """TensorFlow's op, which takes the last class for the blank."""

    def ctc_loss(
        inputs: tf.Tensor, labels_indices: tf.Tensor, labels_values: tf.Tensor, sequence_length: Any, **settings: Any
    ) -> tuple[tf.Tensor, None]:
        places, dense = _known(labels_indices), _gathered_from(labels_values)
        if places is None or dense is None or settings.get("preprocess_collapse_repeated"):
            raise UnsupportedModelError(
                "A CTC loss takes sparse labels of which the data decides how many there are, or which collapse.",
                hint="Use keras.ops.ctc_loss or keras.losses.CTC: they take dense labels, with class 0 for the blank.",
            )
        counts = np.bincount(places[:, 0], minlength=inputs.shape[1])
        labels = np.zeros((len(counts), max(1, counts.max()), 2), np.int64)
        for row, column in places:
            labels[row, column] = row, column
        loss = ctc_ops.ctc_loss_dense(
            labels=tf.cast(tf.gather_nd(dense, labels), tf.int32),
            logits=inputs,
            label_length=tf.constant(counts, tf.int32),
            logit_length=tf.cast(sequence_length, tf.int32),
            blank_index=-1,
        )
        return loss, None

    return (ctc_loss,)


REWRITE = Rewrite(gen_ctc_ops, ("ctc_loss",), _replacement)


def _known(tensor: tf.Tensor) -> NDArray[Any] | None:
    """The value of a tensor that depends on no input; None for others."""
    try:
        with tf.compat.v1.Session(graph=tensor.graph) as session:
            return np.asarray(session.run(tensor))
    except (tf.errors.OpError, ValueError, RuntimeError):
        return None


def _gathered_from(values: tf.Tensor) -> tf.Tensor | None:
    """Finds the dense labels that the values of sparse ones were taken from."""
    op = values.op
    while op.type in ("Cast", "Identity"):
        op = op.inputs[0].op
    return op.inputs[0] if op.type == "GatherNd" else None
