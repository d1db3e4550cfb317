"""How each TensorFlow op without a builtin TFLite form is expressed in builtin ops; one family a module."""

from edgefl_converters.lowerings import activations, bitwise, convolution, embedding, matmul, pooling, random
from edgefl_converters.lowerings.registry import LOWERINGS

__all__ = ["LOWERINGS", "activations", "bitwise", "convolution", "embedding", "matmul", "pooling", "random"]
