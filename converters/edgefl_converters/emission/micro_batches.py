"""A batch as several micro-batches, one after the other in the graph: the same step in the memory of fewer rows.

What is traced for one part of the batch (`tracing`) is emitted again for each, and what it returns is added up. An
interpreter runs whatever is ready, and a delegate takes all that it can at once: so each part looks its rows up at
indices that depend on everything that the one before it has computed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from edgefl.errors import UnsupportedModelError
from edgefl_converters.emission.lowerings.matmul import matmul
from edgefl_converters.emission.traced_ops import static_shape
from edgefl_converters.emission.walk import Walk
from edgefl_converters.training_step.makers import layer_of
from edgefl_converters.training_step.traced_graphs import RANDOM, assigned_inputs, in_order
from edgefl_converters.training_step.tracing import BATCH_WEIGHT, GRADIENT, POSITIONS, Trace, Traces
from edgefl_converters.training_step.variables import METRIC, SEED, STATISTIC, Variables

__all__ = ["emit_parts", "require_separable_rows", "row_mixing_layers"]

Emit = Callable[[Trace, Mapping[str, tf.Tensor]], dict[str, tf.Tensor]]

_ADVICE = "Leave `micro_batch` out; a smaller `batch_size` needs less memory too."
_MOST_DIMENSIONS = 4
"""The most dimensions of a tensor that STRIDED_SLICE takes on every runtime."""


def row_mixing_layers(traces: Traces, variables: Variables) -> list[Any]:
    """The layers by which rows of a batch feel each other in training.

    Those are normalisations of which the moving averages move, and Keras's equalization, which makes one histogram of
    all images of a batch (Keras 3.15).
    """
    moving = {each.keras_path for each in variables.of_role(STATISTIC)}

    def mixes(layer: Any) -> bool:
        if isinstance(layer, keras.layers.BatchNormalization):
            return any(variable.path in moving for variable in layer.non_trainable_variables)
        return isinstance(layer, keras.layers.Equalization)

    return list(filter(mixes, traces.layers))


def require_separable_rows(traces: Traces, variables: Variables) -> None:
    """Checks that a model whose batches are cut into parts computes each row by itself.

    Raises:
        UnsupportedModelError: a layer mixes rows, changes a variable in every forward pass, or draws random numbers of
            which it cannot be told to which row they belong; or an output has other rows than the input.
    """
    if not traces.parts:
        return
    if traces.of_whole_batches:
        raise UnsupportedModelError(
            f"Micro-batches would change what is trained: {traces.of_whole_batches[0]} is computed from all rows of a "
            "batch together.",
            hint=_ADVICE,
        )
    mixing = row_mixing_layers(traces, variables)
    if mixing:
        raise UnsupportedModelError(
            f"Micro-batches would change what is trained: layer {mixing[0].name!r} ({type(mixing[0]).__name__}) "
            "looks at all rows of a batch.",
            hint=_ADVICE
            if isinstance(mixing[0], keras.layers.Equalization)
            else "Freeze it (`frozen`), use GroupNormalization or LayerNormalization, or leave `micro_batch` out; a "
            "smaller `batch_size` needs less memory too.",
        )
    changed = _changed_by(traces.parts["train"], variables)
    if changed:
        raise UnsupportedModelError(
            f"Micro-batches would change what is trained: {changed[0]!r} is changed in every forward pass, and there "
            "would be several in a step.",
            hint=_ADVICE,
        )
    part, whole = traces.parts["infer"], traces.functions["infer"]
    rows, size = part.inputs[0].shape[0], whole.inputs[0].shape[0]
    for name, own, all_rows in zip(part.outputs, part.results, whole.results):
        if own.shape[:1] != [rows] or all_rows.shape[:1] != [size]:
            raise UnsupportedModelError(
                f"Micro-batches would change output {name!r}: it does not have a row for each row of the input.",
                hint=_ADVICE,
            )
    for name in traces.functions:
        _drawn(traces, name, 0)


def _changed_by(trace: Trace, variables: Variables) -> list[str]:
    assigned = assigned_inputs(trace.graph, trace.results)
    found = [variables.by_handle.get(id(outer)) for outer, inner in trace.graph.captures if inner.name in assigned]
    return [each.keras_path for each in found if each is not None and each.role not in (SEED, METRIC)]


def emit_parts(
    name: str, traces: Traces, walk: Walk, emit: Emit, given: Mapping[str, tf.Tensor]
) -> dict[str, tf.Tensor]:
    """Emits a signature part by part.

    Args:
        name: of the signature.
        traces: with parts.
        walk: of this signature.
        emit: emits a traced function with named inputs in this walk.
        given: the signature's inputs by name.

    Returns:
        What the signature's own trace returns, by name.
    """
    part = traces.parts[name]
    rows = part.inputs[0].shape[0]
    size = traces.functions[name].inputs[0].shape[0]
    total: dict[str, tf.Tensor] = {}
    listed: dict[str, list[tf.Tensor]] = {}
    factors: dict[str, list[tuple[tf.Tensor, tf.Tensor]]] = {}
    seed = given.get("seed")
    # Of the whole batch; the parts of an inference need none of it.
    of_batch = {BATCH_WEIGHT: given["sample_weight"]} if "sample_weight" in given else {}
    if of_batch and POSITIONS in traces.parts:
        of_batch |= emit(traces.parts[POSITIONS], given)
    wait: tf.Tensor | None = None
    for first in range(0, size, rows):
        indices = tf.constant(np.arange(first, first + rows, dtype=np.int32))
        if wait is not None:
            indices, seed = indices + wait, None if seed is None else given["seed"] + wait
        cut = {
            port.name: tf.gather(given[port.name], indices)
            for port in part.inputs
            if port.name not in (BATCH_WEIGHT, POSITIONS, "seed")
        }
        cut |= of_batch
        walk.begin_part(seed, _drawn(traces, name, first))
        done: list[tf.Tensor] = []
        for output, tensor in emit(part, cut).items():
            product = walk.factors.get(tensor.name)
            if name == "infer" or part.is_sparse(output):
                listed.setdefault(output, []).append(tensor)
                done.append(tensor)
            elif product is not None and sum(map(_count, product)) * (size // rows) < _count(tensor):
                factors.setdefault(output, []).append(product)
                done += product
            else:
                total[output] = total[output] + tensor if output in total else tensor
                done.append(total[output])
        wait = _zero_after(done)
    total.update((output, tf.concat(tensors, 0)) for output, tensors in listed.items())
    for output, products in factors.items():
        # A sum of products A^T B is one product of all A and all B, which take less memory than sums so far.
        left, right = (tf.concat(each, 0) for each in zip(*products))
        total[output] = matmul(left, right, transpose_left=True)
    if name == "train":
        emit(traces.parts["update"], {**given, **total})
    elif name == "gradient":
        whole = traces.functions[name]
        for output, tensor in zip(whole.outputs, whole.results):
            if output.startswith(GRADIENT) and output not in total:
                total[output] = tf.zeros(tensor.shape, tensor.dtype)
    return total


def _count(tensor: tf.Tensor) -> int:
    return math.prod(static_shape(tensor))


def _zero_after(tensors: Iterable[tf.Tensor]) -> tf.Tensor:
    """An int32 zero that no one knows to be one before all of the tensors are there."""
    numbers = []
    for tensor in tensors:
        if len(tensor.shape) > _MOST_DIMENSIONS:
            tensor = tf.reshape(tensor, [-1])
        if tensor.shape:
            tensor = tensor[(0,) * len(tensor.shape)]
        numbers.append(tf.cast(tensor, tf.float32))
    return tf.cast(tf.greater(tf.reduce_max(tf.stack(numbers)), np.inf), tf.int32)


def _drawn(traces: Traces, name: str, first: int) -> Callable[[Any], tuple[Sequence[int], int]]:
    """Returns what each random op of a part draws from row ``first`` on, as part of what it draws for the batch."""
    part = traces.parts[name]
    drawn: dict[str, tuple[Sequence[int], int]] = {}
    for op, of_batch in zip(_random_ops(part), _random_ops(traces.functions[name]), strict=True):
        own, whole = static_shape(op.outputs[0]), static_shape(of_batch.outputs[0])
        if own == whole:
            drawn[op.name] = (whole, 0)  # the same for all rows
        elif own[1:] == whole[1:]:
            drawn[op.name] = (whole, first * math.prod(own[1:]))
        else:
            raise _draws_otherwise(op, traces, f"in shape {whole} for a batch, not row by row")

    def of(op: Any) -> tuple[Sequence[int], int]:
        if op.graph is not part.graph:
            raise _draws_otherwise(op, traces, "in a branch, a loop or a function of its own")
        return drawn[op.name]

    return of


def _draws_otherwise(op: Any, traces: Traces, how: str) -> UnsupportedModelError:
    maker = layer_of(op.name)
    layer = f"layer {traces.layers[maker].name!r}" if isinstance(maker, int) else "a layer"
    return UnsupportedModelError(
        f"Micro-batches would draw other random numbers: {layer} draws them {how}.", hint=_ADVICE
    )


def _random_ops(trace: Trace) -> list[Any]:
    return [op for op in in_order(trace.graph, trace.results) if RANDOM.search(op.type) and "Key" not in op.type]
