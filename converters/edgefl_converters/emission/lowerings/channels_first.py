"""Ops on images whose channels come first, traced again with the channels last, which is all that TFLite knows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from edgefl_converters.emission.registry import Emitter, lowering_where
from edgefl_converters.emission.traced_ops import attribute, constant, folded, static_shape

_IMAGES: dict[str, tuple[tuple[int, ...], bool]] = {
    "AvgPool": ((0,), True),
    "AvgPool3D": ((0,), True),
    "AvgPool3DGrad": ((0, 1), True),
    "AvgPoolGrad": ((0, 1), True),
    "BiasAdd": ((0,), True),
    "BiasAddGrad": ((0,), False),
    "Conv2D": ((0,), True),
    "Conv2DBackpropFilter": ((0, 2), False),
    "Conv2DBackpropInput": ((0, 2), True),
    "Conv3D": ((0,), True),
    "Conv3DBackpropFilterV2": ((0, 2), False),
    "Conv3DBackpropInputV2": ((0, 2), True),
    "DepthToSpace": ((0,), True),
    "DepthwiseConv2dNative": ((0,), True),
    "DepthwiseConv2dNativeBackpropFilter": ((0, 2), False),
    "DepthwiseConv2dNativeBackpropInput": ((0, 2), True),
    "MaxPool": ((0,), True),
    "MaxPool3D": ((0,), True),
    "MaxPool3DGrad": ((0, 1, 2), True),
    "MaxPoolGrad": ((0, 1, 2), True),
    "SpaceToDepth": ((0,), True),
}
"""Inputs of an op that are images, or the sizes of one, and whether its output is one."""

_PER_AXIS = ("strides", "dilations", "ksize")


def _has_channels_first(op: Any) -> bool:
    return op.type in _IMAGES and bool(attribute(op, "data_format").startswith("NC"))


@lowering_where(_has_channels_first)
def with_channels_last(op: Any, inputs: Sequence[tf.Tensor], emitter: Emitter) -> Sequence[tf.Tensor]:
    """Exchanges axes before and after the op, which is traced for itself and emitted as any other."""
    images, gives_image = _IMAGES[op.type]
    graph, bound = tf.__internal__.FuncGraph(f"{op.type}_channels_last"), {}
    with graph.as_default(), tf.name_scope(f"{op.name}/"):
        turned = []
        for index, (tensor, new) in enumerate(zip(op.inputs, inputs)):
            if index in images and tensor.shape.rank == 1:
                turned.append(tf.constant(_last(constant(op, index).tolist()), tensor.dtype))
                continue
            if (fixed := folded(tensor) if tensor.dtype.is_integer else None) is not None:
                turned.append(tf.constant(fixed))
                continue
            given = tf.compat.v1.placeholder(tensor.dtype, static_shape(tensor))
            bound[given.name] = new
            turned.append(tf.transpose(given, _last(range(given.shape.rank))) if index in images else given)
        types = [tensor.dtype for tensor in op.outputs]
        made = graph._create_op_internal(op.type, turned, types, attrs=_attributes(op), name="channels_last")
        (output,) = made.outputs
        if gives_image:
            rank = output.shape.rank
            output = tf.transpose(output, [0, rank - 1, *range(1, rank - 1)])
    return emitter.emit(graph, bound, [output])


def _attributes(op: Any) -> dict[str, Any]:
    attributes = {key: value for key, value in op.node_def.attr.items() if not key.startswith("_")}
    attributes["data_format"] = _text(attribute(op, "data_format").replace("NC", "N") + "C")
    for name in _PER_AXIS:
        if name in attributes:
            attributes[name] = _numbers(_last(op.get_attr(name)))
    pairs = op.get_attr("explicit_paddings") if "explicit_paddings" in attributes else []
    if pairs:
        attributes["explicit_paddings"] = _numbers([*pairs[:2], *pairs[4:], *pairs[2:4]])
    return attributes


def _last(axes: Sequence[int]) -> list[int]:
    """Moves what stands for the channels to the end."""
    return [axes[0], *axes[2:], axes[1]]


def _text(value: str) -> Any:
    return tf.compat.v1.AttrValue(s=value.encode())


def _numbers(values: Sequence[int]) -> Any:
    return tf.compat.v1.AttrValue(list=tf.compat.v1.AttrValue.ListValue(i=values))
