"""Makes a small .tflite file of one form."""

from __future__ import annotations

import tempfile
from typing import Any

import tensorflow as tf

from edgefl.targets import ALL
from edgefl_converters.emission.walk import Origins, Walk
from edgefl_converters.flatbuffer.file import FlatModel
from edgefl_converters.flatbuffer.pass_context import PassContext
from edgefl_converters.flatbuffer.passes.flat_products import flatten_all_products
from edgefl_converters.flatbuffer.saved_model import convert_saved_model
from on_arm.forms import Form, Group

__all__ = ["SIGNATURE", "build", "input_names"]

SIGNATURE = "form"


def input_names(group: Group) -> list[str]:
    """What the signature calls the group's arguments."""
    return [f"a{index}" for index in range(len(group.shapes))]


def build(group: Group, form: Form) -> bytes:
    """The file; its one signature has the output ``result``.

    A form that is lowered is finished as the converter finishes its files.
    """
    names = input_names(group)
    specs = [tf.TensorSpec(shape, tf.float32) for shape in group.shapes]
    traced = tf.function(form.function, autograph=False).get_concrete_function(*specs)

    def signature(**given: tf.Tensor) -> dict[str, tf.Tensor]:
        if form.lowered:
            bound = {inner.name: given[name] for inner, name in zip(traced.graph.inputs, names)}
            (result,) = Walk(lambda key: key, Origins()).emit(traced.graph, bound, traced.graph.outputs)
        else:
            result: Any = form.function(*(given[name] for name in names))
        return {"result": tf.identity(result)}

    module = tf.Module()
    named = {name: tf.TensorSpec(shape, tf.float32, name=name) for name, shape in zip(names, group.shapes)}
    module.run = tf.function(signature, autograph=False)
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, signatures={SIGNATURE: module.run.get_concrete_function(**named)})
        converted = convert_saved_model(folder, [SIGNATURE])
    if not form.lowered:
        return converted
    flat = FlatModel(converted)
    flatten_all_products(PassContext(flat, ALL))
    flat.drop_unused()
    return flat.pack()
