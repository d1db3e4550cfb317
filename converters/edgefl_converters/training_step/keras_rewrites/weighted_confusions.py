"""Weights of rows for metrics of the confusions at all positions, as of a segmentation, while a model is traced.

Keras flattens the positions of all rows, and then spreads no weight of a row over the positions of that row (Keras
3.15: ``IoU`` and its subclasses refuse weights of rows unless there is one position in each).
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from keras import metrics

from edgefl_converters.training_step.keras_rewrites.rewrite import Rewrite

__all__ = ["REWRITE"]


def _replacement(original: Any) -> tuple[Any, ...]:
    """Keras's update, with a weight for each position."""

    def update_state(self: Any, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        if sample_weight is not None:
            sample_weight = _of_positions(self, tf.convert_to_tensor(sample_weight), tf.convert_to_tensor(y_true))
        return original(self, y_true, y_pred, sample_weight=sample_weight)

    return (update_state,)


def _of_positions(metric: Any, weight: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
    shape = tf.shape(target)
    if not metric.sparse_y_true:
        axis = metric.axis % target.shape.rank
        shape = tf.concat([shape[:axis], shape[axis + 1 :]], 0)
    missing = shape.shape[0] - weight.shape.rank
    if weight.shape.rank and missing >= 0:
        weight = tf.broadcast_to(tf.reshape(weight, tf.concat([tf.shape(weight), [1] * missing], 0)), shape)
    return tf.cast(weight, tf.int32) if "int" in str(metric.dtype) else weight


REWRITE = Rewrite(metrics.IoU, ("update_state",), _replacement)
