"""Loops of TensorFlow as one copy of their body after another, where the number of steps is known while tracing.

`tf.while_loop`, `keras.ops.while_loop`, `fori_loop` and `scan`, `tf.map_fn`, `tf.scan` and a `for` over `tf.range` are
one thing in a graph, a While op, whose gradient no TFLite runtime can express. Where its condition follows from
constants and shapes, the loop is written out, and a TensorArray in it is a list of tensors.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.client import pywrap_tf_session
from tensorflow.python.ops import tensor_array_ops, while_v2

from edgefl.errors import UnsupportedModelError
from edgefl_converters.training_step.keras_rewrites.recurrence import LONGEST
from edgefl_converters.training_step.keras_rewrites.rewrite import Rewrite

__all__ = ["REWRITES"]

_FEW = 64
"""Elements of whole numbers that are looked at: counters and indices."""


def _written_loops(original: Any) -> tuple[Any, ...]:
    def while_loop(
        cond: Any,
        body: Any,
        loop_vars: Any,
        shape_invariants: Any = None,
        parallel_iterations: int = 10,
        maximum_iterations: Any = None,
        name: str | None = None,
        return_same_structure: bool = True,
        back_prop: bool = True,
    ) -> Any:
        values = _tensors(loop_vars)
        most = LONGEST if maximum_iterations is None else _known(tf.convert_to_tensor(maximum_iterations))
        first = True if most == 0 else _goes_on(cond, values)
        if most is None or first is None:
            _require_no_lists(values)
            return original(
                cond,
                body,
                loop_vars,
                shape_invariants=shape_invariants,
                parallel_iterations=parallel_iterations,
                maximum_iterations=maximum_iterations,
                name=name,
                return_same_structure=return_same_structure,
                back_prop=back_prop,
            )
        steps = 0
        while (maximum_iterations is None or steps < int(most)) and _must_go_on(cond, values):
            if steps >= LONGEST:
                raise UnsupportedModelError(
                    f"A loop runs over more than {LONGEST} steps, which are too many to be written out.",
                    hint="Compute on all of them at once, or on fewer.",
                )
            given = body(*values)
            given = given if tf.nest.is_nested(given) and not isinstance(given, tf.Tensor) else [given]
            values = _folded(tf.nest.pack_sequence_as(values, tf.nest.flatten(given)))
            steps += 1
        flat = tf.nest.flatten(values)
        return values if return_same_structure or len(flat) > 1 else flat[0]

    return (while_loop,)


def _tensors(structure: Any) -> Any:
    return tf.nest.map_structure(
        lambda each: each if isinstance(each, tf.TensorArray) else tf.convert_to_tensor(each), structure
    )


def _folded(structure: Any) -> Any:
    """Values with what is known of the small whole numbers among them in their place."""

    def fold(each: Any) -> Any:
        if isinstance(each, tf.TensorArray):
            return each
        tensor = tf.convert_to_tensor(each)
        small = (tensor.dtype.is_integer or tensor.dtype.is_bool) and (tensor.shape.num_elements() or 0) <= _FEW
        value = _known(tensor) if small and tensor.op.type != "Const" else None
        return tensor if value is None else tf.constant(value, tensor.dtype)

    return tf.nest.map_structure(fold, structure)


def _goes_on(cond: Any, values: Any) -> bool | None:
    """Whether another step follows; None where that depends on data."""
    known = _known(tf.convert_to_tensor(cond(*values)))
    return None if known is None else bool(known)


def _must_go_on(cond: Any, values: Any) -> bool:
    found = _goes_on(cond, values)
    if found is None:
        raise UnsupportedModelError(
            "After how many steps a loop ends depends on the data, which devices cannot train through.",
            hint="Give it a fixed number of steps, and choose with tf.where what each of them changes.",
        )
    return found


def _known(tensor: tf.Tensor) -> Any:
    """The value of a tensor that follows from constants and shapes of its graph; None for any other."""
    if not tf.is_symbolic_tensor(tensor):
        return tensor.numpy()
    value = tf.get_static_value(tensor)
    if value is None:
        with tensor.graph._c_graph.get() as graph:
            value = pywrap_tf_session.TF_TryEvaluateConstant_wrapper(graph, tensor._as_tf_output())
    return value


def _require_no_lists(values: Any) -> None:
    """A list of tensors cannot be carried by a loop that is not written out."""
    for each in tf.nest.flatten(values):
        if isinstance(each, tf.TensorArray) and isinstance(each._implementation, _ListOfTensors):
            raise UnsupportedModelError(
                "After how many steps a loop with a TensorArray ends depends on the data, which devices cannot train "
                "through.",
                hint="Give it a fixed number of steps, and choose with tf.where what each of them changes.",
            )


class _ListOfTensors(tensor_array_ops._EagerTensorArray):  # type: ignore[misc]
    """A TensorArray as TensorFlow has it outside of graphs, with tensors of a graph in it."""

    def __init__(self, dtype: Any, size: Any = None, **settings: Any) -> None:
        super().__init__(dtype, size=int(_known(tf.convert_to_tensor(size))), **settings)

    def read(self, index: Any, name: Any = None) -> Any:
        known = _known(tf.convert_to_tensor(index))
        return tf.gather(self.stack(), index) if known is None else super().read(int(known))

    def _write(self, index: Any, value: Any) -> None:
        known = _known(tf.convert_to_tensor(index))
        if known is None:
            raise UnsupportedModelError(
                "Where a TensorArray is written to depends on the data.",
                hint="Write to places that are known beforehand, and choose what goes there with tf.where.",
            )
        super()._write(int(known), value)

    def gather(self, indices: Any, name: Any = None) -> Any:
        return tf.gather(self.stack(), indices)

    def stack(self, name: Any = None) -> Any:
        return tf.stack([self._maybe_zero(index) for index in range(len(self._tensor_array))])

    def scatter(self, indices: Any, value: Any, name: Any = None) -> Any:
        for index, each in zip(np.atleast_1d(_known(tf.convert_to_tensor(indices))), tf.unstack(value), strict=True):
            self._write(index, each)
        return self.parent()


def _lists_of_tensors(original: Any) -> tuple[Any, ...]:
    def made(dtype: Any, size: Any = None, handle: Any = None, flow: Any = None, **settings: Any) -> Any:
        known = None if size is None else _known(tf.convert_to_tensor(size))
        if known is None or handle is not None or flow is not None:
            return original(dtype, size=size, handle=handle, flow=flow, **settings)
        return _ListOfTensors(dtype, size=known, **settings)

    return (made,)


REWRITES = {
    "loops": Rewrite(while_v2, ("while_loop",), _written_loops),
    "tensor_arrays": Rewrite(tensor_array_ops, ("_GraphTensorArrayV2",), _lists_of_tensors),
}
