"""The sums over alignments of CTC written out over time, while a model is traced.

TensorFlow computes Connectionist Temporal Classification (Graves et al. 2006) by the forward and backward algorithm,
each a loop over time that no TFLite runtime can express. A model file knows how long its sequences are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf
from tensorflow.python.ops import ctc_ops

from edgefl_converters.training_step.keras_rewrites.recurrence import require_length
from edgefl_converters.training_step.keras_rewrites.rewrite import Rewrite

__all__ = ["REWRITE"]


def _replacement(original: Any) -> tuple[Any, ...]:
    """TensorFlow's own scan, with the meaning of its arguments."""

    def scan(
        fn: Callable[[Any, Any], Any],
        elems: Any,
        initial: Any,
        reverse: bool = False,
        inclusive: bool = False,
        final_only: bool = False,
    ) -> Any:
        flat = tf.nest.flatten(elems)
        length = flat[0].shape[0]
        require_length(length)
        sums, found = initial, [tf.nest.flatten(initial)] if inclusive else []
        for step in reversed(range(length)) if reverse else range(length):
            sums = fn(sums, tf.nest.pack_sequence_as(elems, [each[step] for each in flat]))
            found.append(tf.nest.flatten(sums))
        if final_only:
            return sums
        in_time = found[::-1] if reverse else found
        return tf.nest.pack_sequence_as(initial, [tf.stack(each) for each in zip(*in_time, strict=True)])

    return (scan,)


REWRITE = Rewrite(ctc_ops, ("_scan",), _replacement)
