"""Finds out by trying what a loss gives of a batch: a number for each row, or one in which rows feel each other.

Keras's own losses are known. Those of users are run on made-up numbers: a loss of rows gives the first rows the same
numbers whether or not others follow them.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from edgefl.errors import ModelError, first_line
from edgefl_converters.training_step.ports import Port

__all__ = ["LossForm", "close", "form_of", "ignored_class", "is_of_keras", "made_up_rows", "some_of", "target_of"]

_TOGETHER = ("circle",)
"""Keras's own losses that compare the rows of a batch with each other."""
_BOUNDS = {
    **dict.fromkeys(("binary_crossentropy", "binary_focal_crossentropy"), (0.0, 1.0)),
    **dict.fromkeys(("hinge", "squared_hinge"), (-1.0, 1.0)),
}
"""Keras's own losses for two classes, and between which numbers their targets lie, probabilities among them: a label
beyond makes a loss that has no least value. Those of one-hot rows are left out, since people weigh rows in them."""
_LARGE = 1 << 22
"""Elements of an output from which on fewer rows are tried than a batch has."""
_FEW = 4
_TOLERANCE = 1e-4


@dataclass(frozen=True)
class LossForm:
    """The kind of loss that was compiled for an output.

    Attributes:
        output: index of the output.
        name: of its function or class.
        rank: of the weights that it multiplies its values with: 0 where a batch has one value, which no row's weight
            belongs to.
        together: whether rows feel each other, so that a batch cannot be filled up.
        own_call: whether it has a ``__call__`` of its own, so that what it does with weights is its own affair.
    """

    output: int
    name: str
    rank: int
    together: bool = False
    own_call: bool = False


def target_of(loss: Any, output: Port, index: int, name: str, shape: tuple[int, ...] | None = None) -> Port:
    """The target that a loss takes for an output: labels where it is known for them, or takes nothing else.

    Args:
        loss: a Keras loss.
        output: what the target is compared with.
        index: of the output.
        name: that the target is to have.
        shape: of the target, with the batch first, where somebody said it; then it is no other.

    Raises:
        ModelError: it takes neither, or no target of this shape.
    """
    if shape is None or shape == output.shape:
        found = _found_target(loss, output, index, name)
    else:
        found = _said_target(loss, output, index, Port(name, shape, "float32", index))
    return found if found.classes is None else replace(found, ignored=ignored_class(loss))


def _said_target(loss: Any, output: Port, index: int, said: Port) -> Port:
    """A target of a shape that was said: labels where the loss takes such ones anyway, else numbers."""
    with contextlib.suppress(ModelError):  # none follows from the loss: why one was said
        found = _found_target(loss, output, index, said.name)
        if found.shape == said.shape:
            return found
    columns = Port(said.name, said.shape, "int32", index, output.shape[-1] if output.shape else None)
    target = columns if _takes_labels(loss) and is_of_keras(loss, getattr(loss, "fn", None)) else said
    try:
        _called(loss, *made_up_rows(target, output))
    except Exception as error:  # of any kind: it is the user's code
        raise ModelError(
            f"The loss {_formula(loss)!r} fails on output {output.name!r} of shape {output.shape} and a target of "
            f"shape {said.shape}, as `target_shape` says: {first_line(error).rstrip('.')}.",
            hint="Give the shape of a row of the targets, without the batch, with which the model trains in Keras.",
        ) from error
    return target


def _found_target(loss: Any, output: Port, index: int, name: str) -> Port:
    alike = Port(name, output.shape, "float32", index)
    named = _takes_labels(loss)
    classes = output.shape[-1] if named and output.shape else None
    shapes = (output.shape[:-1], (*output.shape[:-1], 1)) if len(output.shape) > 1 else ()
    labels = [Port(name, shape, "int32", index, classes) for shape in shapes]
    if is_of_keras(loss, getattr(loss, "fn", None)):
        if _is(loss, *_TOGETHER):
            return labels[0] if labels else alike
        if _is(loss, "ctc") and len(output.shape) == 3:
            # As many labels as there could be, filled up with the blank, which is 0.
            return Port(name, output.shape[:2], "int32", index, output.shape[-1])
        if not named:
            return replace(alike, bounds=_BOUNDS.get(_formula(loss)))
        if not labels:
            raise ModelError(
                f"The loss expects class scores [batch, ..., classes], but output {output.name!r} has shape "
                f"{output.shape}.",
                hint="Change the last layer or the loss so that they fit.",
            )
        return labels[0]
    failures = []
    for target in [*labels, alike] if named else [alike, *labels]:
        try:
            _called(loss, *made_up_rows(target, output))
        except Exception as error:  # of any kind: it is the user's code
            failures.append(error)
        else:
            return target
    first = failures[0]
    raise ModelError(
        f"The loss {_formula(loss)!r} fails on output {output.name!r} of shape {output.shape} and a target of the same "
        f"shape, and on class numbers: {first_line(first).rstrip('.')}.",
        hint="If the loss takes targets of another shape, say which, without the batch, for example "
        "`target_shape=(2,)`. If it does not, the last layer and the loss have to fit: try them in Keras.",
    ) from first


def form_of(loss: Any, target: Port, output: Port) -> LossForm:
    """Finds out what the compiled loss of an output is; ``target`` is as `target_of` gave it."""
    rank = 1 if _is(loss, "ctc") else max(1, len(output.shape) - 1)
    if is_of_keras(loss, getattr(loss, "fn", None)):
        whole = _is(loss, "dice", "tversky") and getattr(loss, "_fn_kwargs", {}).get("axis") is None
        return LossForm(target.output, _formula(loss), 0 if whole else rank, _is(loss, *_TOGETHER))
    arrays = made_up_rows(target, output)
    if type(loss).__call__ is not keras.losses.Loss.__call__:
        return _form_of_own_call(loss, target.output, rank, arrays)
    values = _called(loss, *arrays)
    if values.shape[:1] != (len(arrays[0]),):
        return LossForm(target.output, _formula(loss), 0, together=True)
    together = _feels_other_rows(lambda *rows: _called(loss, *rows), arrays)
    return LossForm(target.output, _formula(loss), values.ndim, together)


def _form_of_own_call(loss: Any, output: int, rank: int, arrays: Sequence[NDArray[Any]]) -> LossForm:
    """It takes weights of rows if ones change nothing, and padding if it agrees with the batch without it."""
    size = len(arrays[0])

    def valued(count: int, weight: Any) -> NDArray[Any] | None:
        try:
            return np.asarray(loss(*(tf.constant(each[:count]) for each in arrays), weight))
        except Exception:  # of any kind: it is the user's code, which may take no weights of this rank
            return None

    plain, weighted = valued(size, None), valued(size, tf.ones([size] + [1] * (rank - 1)))
    takes_weights = plain is not None and weighted is not None and close(plain, weighted)
    if not takes_weights or plain is None or plain.ndim:
        return LossForm(output, _formula(loss), 0, together=True, own_call=True)
    rows = some_of(size)
    weight = np.where(np.arange(size) < rows, size / rows, 0.0).astype(np.float32).reshape([size] + [1] * (rank - 1))
    alone, padded = valued(rows, None), valued(size, tf.constant(weight))
    separate = alone is not None and padded is not None and rows < size and close(alone, padded)
    return LossForm(output, _formula(loss), rank, together=not separate, own_call=True)


def _feels_other_rows(function: Callable[..., Any], arrays: Sequence[NDArray[Any]]) -> bool:
    """Tells whether the first rows of a result change when no others follow; True where that cannot be found out."""
    size = len(arrays[0])
    rows = some_of(size)
    try:
        whole, alone = np.asarray(function(*arrays)), np.asarray(function(*(each[:rows] for each in arrays)))
    except Exception:  # of any kind, and not shown to go row by row: on full batches it is right either way
        return True
    return rows < size and not close(whole[:rows], alone)


def made_up_rows(target: Port, output: Port) -> tuple[NDArray[Any], NDArray[Any]]:
    """A batch of targets and of what a model may give: of fewer rows where it is large."""
    generator = np.random.default_rng(0)
    size = output.shape[0]
    rows = size if math.prod(output.shape) < _LARGE else min(size, _FEW)
    return _made_up(target, rows, generator), _made_up(output, rows, generator)


def _made_up(port: Port, rows: int, generator: np.random.Generator) -> NDArray[Any]:
    """Numbers on which most formulas are defined: labels, or numbers between 0 and 1."""
    shape = (rows, *port.shape[1:])
    if port.dtype.startswith(("int", "uint", "bool")):
        return generator.integers(0, port.classes or 2, shape).astype(port.dtype)
    return generator.uniform(0.05, 0.95, shape).astype(port.dtype)


def _called(loss: Any, target: NDArray[Any], prediction: NDArray[Any]) -> NDArray[Any]:
    """Values of a loss before it is reduced; of one with a ``__call__`` of its own, after."""
    if type(loss).__call__ is not keras.losses.Loss.__call__:
        return np.asarray(loss(tf.constant(target), tf.constant(prediction), None))
    own = (keras.ops.convert_to_tensor(each, dtype=loss.dtype) for each in (target, prediction))
    return np.asarray(loss.call(*own))


def some_of(size: int) -> int:
    """The number of rows that are tried without the others."""
    return min(3, max(1, size - 1))


def close(one: NDArray[Any], other: NDArray[Any]) -> bool:
    """Tells whether numbers are the same but for rounding; NaN is never."""
    return one.shape == other.shape and bool(np.allclose(one, other, rtol=_TOLERANCE, atol=_TOLERANCE))


def is_of_keras(of_class: Any, function: Any) -> bool:
    """Tells whether Keras itself wrote the class of an object, and the function that it wraps, if any."""
    made_by = [type(of_class), *([] if function is None else [function])]
    return all(str(getattr(each, "__module__", "")).startswith("keras.") for each in made_by)


def ignored_class(loss: Any) -> int | None:
    """The class number whose positions one of Keras's losses leaves out."""
    found: int | None = getattr(loss, "_fn_kwargs", {}).get("ignore_class")
    return found


def _takes_labels(loss: Any) -> bool:
    """True for the losses whose target is a class number per row, as their names say."""
    plain = _formula(loss).lower().replace("_", "")
    return "sparsecategorical" in plain or "categoricalgeneralized" in plain


def _is(loss: Any, *formulas: str) -> bool:
    return _formula(loss) in formulas


def _formula(loss: Any) -> str:
    return str(getattr(getattr(loss, "fn", None), "__name__", None) or type(loss).__name__)
