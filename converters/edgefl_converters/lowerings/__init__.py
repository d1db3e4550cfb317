"""How each TensorFlow op without a builtin TFLite form is expressed in builtin ops; one family a module."""

from edgefl_converters.lowerings import (
    activations,
    bitwise,
    broadcasting,
    convolution,
    depthwise,
    embedding,
    error_function,
    matmul,
    pooling,
    random,
    reduction,
    slicing,
)
from edgefl_converters.lowerings.registry import LOWERINGS

__all__ = [
    "LOWERINGS",
    "activations",
    "bitwise",
    "broadcasting",
    "convolution",
    "depthwise",
    "embedding",
    "error_function",
    "matmul",
    "pooling",
    "random",
    "reduction",
    "slicing",
]
