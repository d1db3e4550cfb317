"""A layer for a function of TensorFlow that Keras 3 has no operation for: ``tf.nn.local_response_normalization``.

Functions are found by the name under which TensorFlow publishes them. Only those are called that compute and do nothing
else: a file may name any.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import keras
import tensorflow as tf

from edgefl.errors import ModelError

__all__ = ["TensorFlowOperation", "function_named", "index_of"]

_MODULES = ("math", "nn", "linalg", "signal", "image", "bitwise", "random", "keras.backend")
"""Modules whose functions only compute."""
_FUNCTIONS = frozenset(
    re.findall(
        r"\w+",
        """abs acos acosh add add_n argmax argmin argsort asin asinh atan atan2 atanh batch_to_space bitcast
        boolean_mask broadcast_dynamic_shape broadcast_static_shape broadcast_to cast clip_by_global_norm
        clip_by_norm clip_by_value concat convert_to_tensor cos cosh cumsum div divide dynamic_partition
        dynamic_stitch einsum ensure_shape equal exp expand_dims extract_volume_patches eye fill fingerprint
        floor floor_div floordiv floormod gather gather_nd greater greater_equal histogram_fixed_width
        identity identity_n less less_equal linspace log logical_and logical_not logical_or matmul
        matrix_square_root maximum meshgrid minimum mod multinomial multiply negative norm not_equal one_hot
        ones ones_like pad parallel_stack pow random_normal random_uniform range rank realdiv reduce_all
        reduce_any reduce_logsumexp reduce_max reduce_mean reduce_min reduce_prod reduce_sum repeat reshape
        reverse reverse_sequence roll round rsqrt saturate_cast scalar_mul scatter_nd searchsorted
        sequence_mask shape sigmoid sign sin sinh size slice sort space_to_batch space_to_batch_nd split
        sqrt square squeeze stack stop_gradient strided_slice subtract switch_case tan tanh
        tensor_scatter_nd_add tensor_scatter_nd_max tensor_scatter_nd_min tensor_scatter_nd_sub
        tensor_scatter_nd_update tensordot tile transpose truediv truncatediv truncatemod unstack where
        zeros zeros_like""",
    )
)
"""Those of the top level that only compute."""
_WITH_EFFECTS = frozenset(
    re.findall(
        r"\w+",
        """set_seed set_random_seed set_floatx set_epsilon set_image_data_format clear_session set_session
        get_session set_value batch_set_value update update_add update_sub moving_average_update
        manual_variable_initialization function variable set_learning_phase reset_uids print_tensor""",
    )
)
_OPERATORS: dict[str, Callable[..., Any]] = {
    "getitem": lambda x, slice_spec: x[index_of(slice_spec)],
    "add": tf.add,
    "eq": tf.equal,
    "ne": tf.not_equal,
}
_PLACE = "edgefl tensor"


def function_named(name: str) -> Callable[..., Any]:
    """The function of TensorFlow that a file names.

    Args:
        name: such as ``math.reduce_mean``, without ``tf``.

    Raises:
        ModelError: TensorFlow has none of that name, or one that does more than compute.
    """
    module, _, function = name.removeprefix("compat.v1.").rpartition(".")
    if module == "__operators__" and function in _OPERATORS:
        return _OPERATORS[function]
    found: Any = tf
    for part in name.split("."):
        found = getattr(found, part, None)
    known = module in _MODULES or (not module and function in _FUNCTIONS)
    if not known or function in _WITH_EFFECTS or not callable(found) or isinstance(found, type):
        raise ModelError(
            f"The model computes with tf.{name}, which "
            f"{'TensorFlow does not have' if found is None else 'is not called from a file'}.",
            hint="Give module:function that builds the model with layers of Keras 3 in its place, calls load_weights "
            "on it with this file, and returns it.",
        )
    return found  # type: ignore[no-any-return]


def index_of(described: Any) -> Any:
    """Makes an index of what a file says of it: slices are written as ``start``, ``stop`` and ``step``."""
    if isinstance(described, Mapping):
        return slice(described.get("start"), described.get("stop"), described.get("step"))
    if isinstance(described, (list, tuple)):
        return tuple(map(index_of, described))
    return described


@keras.saving.register_keras_serializable("edgefl")
class TensorFlowOperation(keras.layers.Layer):  # type: ignore[misc]
    """Calls a function of TensorFlow with tensors and constants.

    Args:
        function: its name, without ``tf``.
        first: its first argument, with `place` in the place of tensors.
        arguments: those by name, with `place` in the place of tensors.
    """

    def __init__(self, function: str, first: Any, arguments: Mapping[str, Any], **settings: Any) -> None:
        super().__init__(**settings)
        self.function = function
        self.first = first
        self.arguments = dict(arguments)

    @staticmethod
    def place(index: int) -> dict[str, int]:
        """Stands for a tensor."""
        return {_PLACE: index}

    def call(self, tensors: Any) -> Any:
        """Calls the function.

        Args:
            tensors: a list.
        """
        given = _filled(self.first, tensors)
        named = {name: _filled(value, tensors) for name, value in self.arguments.items()}
        return function_named(self.function)(given, **named)

    def compute_output_spec(self, tensors: Any) -> Any:
        """See Keras, which believes that a product with a constant is sparse."""
        return super().compute_output_spec([keras.KerasTensor(each.shape, each.dtype) for each in tensors])

    def get_config(self) -> dict[str, Any]:
        """See Keras."""
        return {
            **super().get_config(),
            "function": self.function,
            "first": keras.saving.serialize_keras_object(self.first),
            "arguments": keras.saving.serialize_keras_object(self.arguments),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> TensorFlowOperation:
        """See Keras."""
        own = {name: keras.saving.deserialize_keras_object(config[name]) for name in ("first", "arguments")}
        return cls(**{**config, **own})


def _filled(value: Any, tensors: Any) -> Any:
    if isinstance(value, Mapping):
        if set(value) == {_PLACE}:
            return tensors[value[_PLACE]]
        return {name: _filled(each, tensors) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        filled = [_filled(each, tensors) for each in value]
        return tuple(filled) if isinstance(value, tuple) else filled
    return value
