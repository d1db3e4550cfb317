"""Low-rank adapters beside the weights while a model is traced: xW + (xA)B, where Keras computes x(W + AB).

The function and its gradients are the same (Hu et al. 2021, section 4.1). But W + AB is another matrix of the size of
W in every step, and the gradient with respect to it one more, of which A and B then take a part of rank r; factored,
nothing but products of rank r comes to the products with W, and W stays the constant that it is in the file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf
from keras import layers, ops
from keras.src.layers.convolutional.base_conv import BaseConv

from edgefl_converters.training_step.keras_rewrites.rewrite import Rewrite

__all__ = ["REWRITES"]

_RANK_LABELS = "rstuvwxyzabcdefghijklmnopq"


def _is_factored(layer: Any) -> bool:
    """True for adapters beside one matrix of floats; quantized layers compute in a way of their own."""
    return bool(layer.lora_enabled) and layer.quantization_mode is None


def _scaled(layer: Any, update: Any) -> Any:
    """The adapters' part of an output, which counts alpha / rank times."""
    return update if layer.lora_alpha == layer.lora_rank else update * (layer.lora_alpha / layer.lora_rank)


def _dense(original: Callable[..., Any]) -> tuple[Any, ...]:
    def call(self: Any, inputs: Any, training: bool | None = None) -> Any:
        if not _is_factored(self):
            return original(self, inputs, training)
        update = ops.matmul(ops.matmul(inputs, self.lora_kernel_a), self.lora_kernel_b)
        return _activated(self, ops.matmul(inputs, self._kernel) + _scaled(self, update), self.bias)

    return (call,)


def _einsum_dense(original: Callable[..., Any]) -> tuple[Any, ...]:
    def call(self: Any, inputs: Any, training: bool | None = None) -> Any:
        equations = factored_equations(self.equation) if _is_factored(self) else None
        if equations is None:
            return original(self, inputs, training)
        matrices = (self.lora_kernel_a, self.lora_kernel_b)
        first, second = matrices if equations[0] else matrices[::-1]
        update = ops.einsum(equations[2], ops.einsum(equations[1], inputs, first), second)
        return _activated(self, ops.einsum(self.equation, inputs, self._kernel) + _scaled(self, update), self.bias)

    return (call,)


def factored_equations(equation: str) -> tuple[bool, str, str] | None:
    """Splits a product with A B, which share the kernel's labels but for its last one, into two of rank r.

    Args:
        equation: such as ``"abc,cde->abde"``, of inputs, kernel and outputs.

    Returns:
        Whether A comes first, the equation of the first product and that of the second; None where no order has
        intermediate results of rank r, because the kernel's last label is of inputs and outputs.
    """
    (inputs, kernel), outputs = (part.split(",") for part in equation.replace(" ", "").split("->"))
    (out,) = outputs
    label = next(each for each in _RANK_LABELS if each not in equation)
    last, a = kernel[-1], kernel[:-1] + label
    if last not in inputs:
        between = out.replace(last, label)
        return True, f"{inputs},{a}->{between}", f"{between},{label}{last}->{out}"
    if last not in out:
        between = inputs.replace(last, label)
        return False, f"{inputs},{label}{last}->{between}", f"{between},{a}->{out}"
    return None


def _convolution(original: Callable[..., Any]) -> tuple[Any, ...]:
    def call(self: Any, inputs: Any) -> Any:
        if not _is_factored(self) or self.groups > 1:
            return original(self, inputs)
        padding = self.padding
        if padding == "causal":
            inputs, padding = ops.pad(inputs, self._compute_causal_padding()), "valid"
        window = {"strides": list(self.strides), "padding": padding, "dilation_rate": self.dilation_rate}
        between = ops.conv(inputs, self.lora_kernel_a, data_format=self.data_format, **window)
        across = ops.reshape(self.lora_kernel_b, (*[1] * self.rank, *self.lora_kernel_b.shape))
        update = ops.conv(between, across, padding="valid", data_format=self.data_format)
        outputs = ops.conv(inputs, self._kernel, data_format=self.data_format, **window) + _scaled(self, update)
        bias = self.bias if self.use_bias else None
        if bias is not None and self.data_format == "channels_first":
            bias = ops.reshape(bias, (self.filters, *[1] * self.rank))
        return _activated(self, outputs, bias)

    return (call,)


def _embedding(original: Callable[..., Any]) -> tuple[Any, ...]:
    def call(self: Any, inputs: Any) -> Any:
        if not _is_factored(self):
            return original(self, inputs)
        if inputs.dtype not in ("int32", "int64"):
            inputs = ops.cast(inputs, "int32")
        adapted = ops.take(_with_dense_gradient(tf.convert_to_tensor(self.lora_embeddings_a)), inputs, axis=0)
        update = _scaled(self, ops.matmul(adapted, self.lora_embeddings_b))
        return ops.cast(ops.take(self._embeddings, inputs, axis=0) + update, dtype=self.compute_dtype)

    return (call,)


@tf.custom_gradient  # type: ignore[untyped-decorator]
def _with_dense_gradient(matrix: tf.Tensor) -> tuple[tf.Tensor, Callable[[Any], tf.Tensor]]:
    """A matrix whose rows are looked up; optimizers move all of them, as those of merged weights."""
    return tf.identity(matrix), tf.convert_to_tensor


def _reversed_embedding(original: Callable[..., Any]) -> tuple[Any, ...]:
    def call(self: Any, inputs: Any, reverse: bool = False) -> Any:
        own_type = self.reverse_dtype in (None, self.compute_dtype)
        if not (reverse and self.tie_weights and own_type and _is_factored(self)):
            return original(self, inputs, reverse)
        within = ops.matmul(inputs, ops.transpose(self.lora_embeddings_b))
        update = _scaled(self, ops.matmul(within, ops.transpose(self.lora_embeddings_a)))
        logits = ops.matmul(inputs, ops.transpose(self._embeddings)) + update
        cap = self.logit_soft_cap
        return logits if cap is None else ops.tanh(logits / cap) * cap

    return (call,)


def _activated(layer: Any, outputs: Any, bias: Any) -> Any:
    if bias is not None:
        outputs = ops.add(outputs, bias)
    return outputs if layer.activation is None else layer.activation(outputs)


REWRITES = {
    "lora of Dense": Rewrite(layers.Dense, ("call",), _dense),
    "lora of EinsumDense": Rewrite(layers.EinsumDense, ("call",), _einsum_dense),
    "lora of convolutions": Rewrite(BaseConv, ("call",), _convolution),
    "lora of Conv1D": Rewrite(layers.Conv1D, ("call",), _convolution),
    "lora of Embedding": Rewrite(layers.Embedding, ("call",), _embedding),
    "lora of ReversibleEmbedding": Rewrite(layers.ReversibleEmbedding, ("call",), _reversed_embedding),
}
"""By name."""
