"""Operations of TensorFlow among the layers of a model, such as ``x / 127.5 - 1``: TFOpLambda and SlicingOpLambda.

Where Keras 3 has the same operation, the rebuilt model has that, so that Keras reads what is made of it.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

import keras

from edgefl.errors import ModelError, first_line
from edgefl_converters.models.sources.keras_2.batch_size import OfBatch, computed, shape_of
from edgefl_converters.models.sources.keras_2.keras_operations import IN_KERAS, TENSORS, is_tensor
from edgefl_converters.models.sources.keras_2.spelling import plain_name
from edgefl_converters.models.sources.keras_2.tensorflow_operation import TensorFlowOperation, function_named

__all__ = ["OPERATION_LAYERS", "operation"]

OPERATION_LAYERS = ("TFOpLambda", "SlicingOpLambda")
"""Classes of Keras 2 that are operations and not layers."""
_SHAPES = ("shape", "rank", "size", "ndim")
_MODULES = ("compat.v1.", "__operators__.", "math.", "nn.", "linalg.", "keras.backend.")


def operation(described: Mapping[str, Any]) -> Callable[..., list[Any]]:
    """Makes of an entry among a model's layers what it does: a function of its first argument and of arguments by name.

    It returns a list of results: tensors, and numbers that are known or depend on nothing but the batch size.

    Args:
        described: the entry, with ``name`` and ``config``.
    """
    function = str(described["config"]["function"])
    name = plain_name(str(described["name"]))

    def perform(first: Any, **named: Any) -> list[Any]:
        given = {key: value for key, value in named.items() if key != "name" and value is not None}
        results = _perform(function, first, given)
        _name(results, (first, given), name)
        return results

    return perform


def _perform(function: str, first: Any, named: dict[str, Any]) -> list[Any]:
    short = _short(function)
    leaves = keras.tree.flatten((first, named))
    if not any(map(is_tensor, leaves)):
        try:
            known = computed(function_named(function), first, named)
        except ModelError:
            raise
        except Exception as error:
            raise _not_whole(function, first_line(error)) from error
        if known is not None:
            return known
    if short in _SHAPES and is_tensor(first) and _is_number(short, first):
        return _of_shape(short, first)
    if short == "reshape" and isinstance(named.get("shape"), OfBatch):
        named = {**named, "shape": named["shape"].with_unknown()}
    elif short == "reshape":
        named = {**named, "shape": [-1 if isinstance(each, OfBatch) else each for each in named["shape"]]}
    first, named = keras.tree.map_structure(
        lambda each: each.as_tensors() if isinstance(each, OfBatch) else each, (first, named)
    )
    same = IN_KERAS.get(short)
    if same is not None and _takes(same, first, named) and _has_only_usual_tensors(named):
        result = same(first, **named)
        if result is not NotImplemented:
            return list(keras.tree.flatten(result))
    return list(keras.tree.flatten(_in_tensorflow(function, first, named)))


def _in_tensorflow(function: str, first: Any, named: dict[str, Any]) -> Any:
    function_named(function)
    tensors: list[Any] = []

    def put(each: Any) -> Any:
        if not is_tensor(each):
            return each
        tensors.append(each)
        return TensorFlowOperation.place(len(tensors) - 1)

    template = keras.tree.map_structure(put, (first, named))
    try:
        return TensorFlowOperation(function, *template)(tensors)
    except Exception as error:
        said = re.search(r"Error encountered:\s*(.+)", str(error))
        reason = said.group(1).removesuffix("\x1b[0m") if said else first_line(error)
        raise _not_whole(function, reason) from error


def _not_whole(function: str, reason: str) -> ModelError:
    return ModelError(
        f"The model computes with tf.{function}, which fails with the arguments that are in the file: {reason}",
        hint="Of `x == y`, `x != y` and tf.einsum Keras 2 saves only a part, and cannot load such a file itself. "
        "Use tf.equal, tf.not_equal or tf.matmul in their place, and save the model again.",
    )


def _name(results: Any, given: Any, name: str) -> None:
    """Names the operations between arguments and a result: Keras would number them through the whole process."""
    before = [each.source if isinstance(each, OfBatch) else each for each in keras.tree.flatten(given)]
    known = {id(each) for each in before if is_tensor(each)}
    waiting = [each for each in keras.tree.flatten(results) if is_tensor(each) and id(each) not in known]
    made: list[Any] = []
    while waiting:
        history = waiting.pop()._keras_history
        if history.operation in made or isinstance(history.operation, keras.layers.InputLayer):
            continue
        made.append(history.operation)
        needed = history.operation._inbound_nodes[history.node_index].input_tensors
        waiting += [each for each in needed if id(each) not in known]
    for index, each in enumerate(made):
        each.name = f"{name}_of_{index}" if index else name


def _of_shape(short: str, tensor: Any) -> list[Any]:
    if short in ("rank", "ndim"):
        return [len(tensor.shape)]
    shape = shape_of(tensor)
    return [shape] if short == "shape" else computed(function_named("math.reduce_prod"), shape, {}) or []


def _is_number(short: str, tensor: Any) -> bool:
    return short in ("rank", "ndim") or all(each is not None for each in tensor.shape[1:])


def _short(function: str) -> str:
    for module in _MODULES:
        function = function.removeprefix(module)
    return function


def _takes(function: Callable[..., Any], first: Any, named: Mapping[str, Any]) -> bool:
    try:
        inspect.signature(function).bind(first, **named)
    except TypeError:
        return False
    return True


def _has_only_usual_tensors(named: Mapping[str, Any]) -> bool:
    """False where a tensor says how to compute, such as a shape; Keras wants numbers there."""
    unusual = [value for name, value in named.items() if name not in TENSORS]
    return not any(map(is_tensor, keras.tree.flatten(unusual)))
