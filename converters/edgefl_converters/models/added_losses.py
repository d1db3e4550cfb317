"""Notices which layers add a loss of a batch with ``add_loss``, while a model is called."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import keras
import tensorflow as tf

__all__ = ["AddedLosses", "added_losses", "adds_losses"]


@dataclass
class AddedLosses:
    """Losses that layers added.

    Attributes:
        losses: each layer with a tensor that it added; regularizers are none of them.
    """

    losses: list[tuple[Any, Any]] = field(default_factory=list)

    @property
    def layers(self) -> list[Any]:
        """The layers whose losses depend on the data, each once."""
        found = {id(layer): layer for layer, loss in self.losses if _depends_on_data(loss)}
        return list(found.values())


def adds_losses(model: Any) -> bool:
    """Tells whether a layer of a built model adds a loss when it is called; False where it cannot be called."""
    functional = getattr(model, "_functional", None) or model
    structure = getattr(functional, "_inputs_struct", None)
    if structure is None:
        shapes = dict(getattr(model, "_build_shapes_dict", None) or {})
        structure = keras.tree.map_shape_structure(
            lambda shape: keras.KerasTensor(shape, "float32"), next(iter(shapes.values()), None)
        )
    specs = [tf.TensorSpec(each.shape, each.dtype) for each in keras.tree.flatten(structure) if each is not None]
    if not specs:
        return False
    with added_losses() as added:
        try:
            tf.function(
                lambda *tensors: keras.tree.flatten(model(keras.tree.pack_sequence_as(structure, list(tensors)))),
                autograph=False,
            ).get_concrete_function(*specs)
        except Exception:  # of any kind: it is the user's code, and whoever converts it meets it again
            return False
    return bool(added.losses)


@contextlib.contextmanager
def added_losses() -> Iterator[AddedLosses]:
    """Lets Keras note what layers add to the loss of their own accord."""
    added = AddedLosses()
    original = keras.Layer.add_loss
    own_code = original.__code__.co_filename

    def add_loss(self: Any, loss: Any) -> Any:
        # Keras adds what regularizes activations by the same method, from the same module.
        if sys._getframe(1).f_code.co_filename != own_code:
            added.losses += [(self, each) for each in keras.tree.flatten(loss)]
        return original(self, loss)

    keras.Layer.add_loss = add_loss
    try:
        yield added
    finally:
        keras.Layer.add_loss = original


def _depends_on_data(loss: Any) -> bool:
    """Tells whether a tensor of a graph that is being traced comes from one of its inputs that is no variable."""
    if not hasattr(loss, "op"):
        return True
    pending, seen = [loss.op], set()
    while pending:
        op = pending.pop()
        if op.name in seen:
            continue
        seen.add(op.name)
        if op.type == "Placeholder" and op.outputs[0].dtype != tf.resource:
            return True
        pending.extend(each.op for each in op.inputs)
    return False
