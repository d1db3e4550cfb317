"""Counts the floating-point operations of a signature from the shapes in the file.

The formula, for one call; a multiplication and an addition are two operations:

- products of matrices and convolutions: twice the multiplications of the definition, that is 2 × values of the result ×
  values that each of them sums over, zero padding included; 1 more for each value of the result if there is a bias.
  Products with a matrix of int8, which are computed in int8, are a kind of their own
- elementwise ops (arithmetic, comparisons, functions): 1 for each value of the result, an exponential like a sum;
  softmax 5 for each (maximum, difference, exponential, sum, quotient)
- reductions and pooling: 1 for each value that is looked at

What only moves or chooses values (reshapes, transposes, gathers, slices, casts) counts nothing, nor does what computes
with integers (indices, random numbers), nor do activations fused into another op. Of the branches of a condition the
larger one counts, of a loop one turn.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from edgefl.inspecting.graph import Graph, Operator, Tensor

__all__ = ["KINDS", "flops"]

KINDS = ("matrix products", "int8 products", "convolutions", "elementwise", "reductions")

_ELEMENTWISE = frozenset(
    {
        *("ADD", "SUB", "MUL", "DIV", "FLOOR_DIV", "FLOOR_MOD", "POW", "ATAN2", "MAXIMUM", "MINIMUM", "ABS"),
        *("NEG", "SIGN", "SQUARE", "SQRT", "RSQRT", "EXP", "LOG", "SIN", "COS", "TANH", "LOGISTIC", "ELU"),
        *("RELU", "RELU6", "RELU_N1_TO_1", "RELU_0_TO_1", "LEAKY_RELU", "PRELU", "GELU", "HARD_SWISH"),
        *("FLOOR", "CEIL", "ROUND", "EQUAL", "NOT_EQUAL", "LESS", "LESS_EQUAL", "GREATER", "GREATER_EQUAL"),
    }
)
_SEVERAL = {"SQUARED_DIFFERENCE": 2, "SOFTMAX": 5, "LOG_SOFTMAX": 5, "L2_NORMALIZATION": 3}
_REDUCTIONS = frozenset(
    {
        *("SUM", "MEAN", "REDUCE_PROD", "REDUCE_MAX", "REDUCE_MIN", "ARG_MAX", "ARG_MIN", "CUMSUM"),
        *("SEGMENT_SUM", "UNSORTED_SEGMENT_SUM", "UNSORTED_SEGMENT_PROD"),
        *("UNSORTED_SEGMENT_MAX", "UNSORTED_SEGMENT_MIN"),
    }
)
_POOLING = frozenset(("AVERAGE_POOL_2D", "MAX_POOL_2D", "L2_POOL_2D"))


def flops(graph: Graph, signature: str) -> dict[str, int]:
    """Counts the floating-point operations of one call.

    Args:
        graph: the file's graphs.
        signature: its name.

    Returns:
        Operations by each of `KINDS`, and their ``total``.
    """
    counts = _subgraph(graph, graph.signatures[signature])
    return {**{kind: counts[kind] for kind in KINDS}, "total": sum(counts.values())}


def _subgraph(graph: Graph, index: int) -> Counter[str]:
    counts: Counter[str] = Counter()
    for operator in graph.operators[index]:
        if operator.name == "IF":
            counts.update(_larger([_subgraph(graph, each) for each in operator.calls]))
        elif operator.name == "WHILE":
            for each in operator.calls:
                counts.update(_subgraph(graph, each))
        else:
            kind, number = _operator(operator, graph.tensors[index])
            counts[kind] += number
    return counts


def _larger(branches: Sequence[Counter[str]]) -> Counter[str]:
    return max(branches, key=lambda branch: sum(branch.values()))


def _operator(operator: Operator, tensors: Sequence[Tensor]) -> tuple[str, int]:
    given = [tensors[index] for index in operator.inputs if index >= 0]
    if not operator.outputs or not any(each.is_float for each in given):
        return "elementwise", 0
    result = tensors[operator.outputs[0]].size
    name = operator.name
    if name in _PRODUCTS:
        kind, terms, operands = _PRODUCTS[name]
        if name == "FULLY_CONNECTED" and given[1].dtype == "int8":
            kind = "int8 products"
        bias = result if len(given) > operands else 0
        return kind, 2 * terms(operator, given, result) + bias
    if name in _REDUCTIONS:
        return "reductions", given[0].size
    if name in _POOLING:
        return "reductions", result * operator.window
    if name in _SEVERAL:
        return "elementwise", _SEVERAL[name] * result
    if name == "ADD_N":
        return "elementwise", (len(given) - 1) * result
    return "elementwise", result if name in _ELEMENTWISE else 0


def _batch_matmul(operator: Operator, given: Sequence[Tensor], result: int) -> int:
    return result * given[0].shape[-2 if operator.left_transposed else -1]


def _fully_connected(operator: Operator, given: Sequence[Tensor], result: int) -> int:
    return result * given[1].shape[-1]


def _conv(operator: Operator, given: Sequence[Tensor], result: int) -> int:
    """Filter ``[out, height, width, in of the group]``."""
    return result * (given[1].size // given[1].shape[0])


def _depthwise(operator: Operator, given: Sequence[Tensor], result: int) -> int:
    """Filter ``[1, height, width, out]``."""
    return result * given[1].shape[1] * given[1].shape[2]


def _conv_3d(operator: Operator, given: Sequence[Tensor], result: int) -> int:
    """Filter ``[depth, height, width, in, out]``."""
    return result * (given[1].size // given[1].shape[-1])


def _transpose_conv(operator: Operator, given: Sequence[Tensor], result: int) -> int:
    """Operands: shape of the result, filter ``[…, in]``, input; each value of the input meets the filter's for it."""
    return given[2].size * (given[1].size // given[1].shape[-1])


_Terms = Callable[[Operator, Sequence[Tensor], int], int]
_PRODUCTS: dict[str, tuple[str, _Terms, int]] = {
    "BATCH_MATMUL": ("matrix products", _batch_matmul, 2),
    "FULLY_CONNECTED": ("matrix products", _fully_connected, 2),
    "CONV_2D": ("convolutions", _conv, 2),
    "DEPTHWISE_CONV_2D": ("convolutions", _depthwise, 2),
    "CONV_3D": ("convolutions", _conv_3d, 2),
    "TRANSPOSE_CONV": ("convolutions", _transpose_conv, 3),
    "CONV_3D_TRANSPOSE": ("convolutions", _transpose_conv, 3),
}
"""Op to its kind, the multiplications of its definition, and the operands without a bias."""
