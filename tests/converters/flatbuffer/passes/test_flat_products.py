"""Products lose their leading dimension where nothing else needs it, and the reshapes around them."""

from __future__ import annotations

import keras
import pytest
from keras import layers
from tensorflow.lite.python import schema_py_generated as schema

from edgefl.inspecting.graph import read_graph
from edgefl.model_file import ModelFile
from edgefl_converters.building.building import build
from edgefl_converters.flatbuffer.graph_index import GraphIndex
from edgefl_converters.flatbuffer.passes.flat_products import flatten_products

PRODUCT, RESHAPE, CONCATENATION, ADD = (
    schema.BuiltinOperator.BATCH_MATMUL,
    schema.BuiltinOperator.RESHAPE,
    schema.BuiltinOperator.CONCATENATION,
    schema.BuiltinOperator.ADD,
)


class Graph:
    """A subgraph in object form; an op's kind is its `opcodeIndex`."""

    def __init__(self):
        self.subgraph = schema.SubGraphT()
        self.subgraph.tensors, self.subgraph.operators = [], []
        self.subgraph.inputs, self.subgraph.outputs = [], []

    def tensor(self, *shape):
        tensor = schema.TensorT()
        tensor.shape = list(shape)
        self.subgraph.tensors.append(tensor)
        return len(self.subgraph.tensors) - 1

    def given(self, *shape):
        self.subgraph.inputs.append(self.tensor(*shape))
        return self.subgraph.inputs[-1]

    def op(self, kind, inputs, *shape):
        operator = schema.OperatorT()
        operator.opcodeIndex, operator.inputs, operator.outputs = kind, inputs, [self.tensor(*shape)]
        self.subgraph.operators.append(operator)
        return operator.outputs[0]

    def flatten(self):
        index = GraphIndex(self.subgraph)
        flatten_products(index, lambda operator: operator.opcodeIndex, lambda _, shape: self.tensor(len(shape)))

    def shapes(self, *tensors):
        return [list(self.subgraph.tensors[tensor].shape) for tensor in tensors]

    @property
    def kinds(self):
        return [operator.opcodeIndex for operator in self.subgraph.operators]


@pytest.fixture
def graph():
    return Graph()


def test_reshapes_around_a_product_go(graph):
    left, right = graph.given(4, 3), graph.given(3, 2)
    deep = graph.op(RESHAPE, [left, graph.tensor(3)], 1, 4, 3), graph.op(RESHAPE, [right, graph.tensor(3)], 1, 3, 2)
    product = graph.op(PRODUCT, list(deep), 1, 4, 2)
    graph.subgraph.outputs = [graph.op(ADD, [graph.op(RESHAPE, [product, graph.tensor(2)], 4, 2), left], 4, 2)]

    graph.flatten()

    assert graph.kinds == [PRODUCT, ADD]
    assert graph.subgraph.operators[0].inputs == [left, right]
    assert graph.shapes(product) == [[4, 2]]


def test_a_reshape_from_more_dimensions_stays_and_ends_at_two(graph):
    image, right = graph.given(2, 2, 1, 3), graph.given(3, 2)
    rows, columns = (
        graph.op(RESHAPE, [image, graph.tensor(3)], 1, 4, 3),
        graph.op(RESHAPE, [right, graph.tensor(3)], 1, 3, 2),
    )
    product = graph.op(PRODUCT, [rows, columns], 1, 4, 2)
    graph.subgraph.outputs = [graph.op(RESHAPE, [product, graph.tensor(4)], 2, 2, 1, 2)]

    graph.flatten()

    assert graph.kinds == [RESHAPE, PRODUCT, RESHAPE]
    assert graph.shapes(rows, product, *graph.subgraph.outputs) == [[4, 3], [4, 2], [2, 2, 1, 2]]


def test_elementwise_ops_between_products_and_reshapes_follow(graph):
    left, right, bias = graph.given(4, 3), graph.given(3, 2), graph.given(2)
    deep = graph.op(RESHAPE, [left, graph.tensor(3)], 1, 4, 3), graph.op(RESHAPE, [right, graph.tensor(3)], 1, 3, 2)
    moved = graph.op(ADD, [graph.op(PRODUCT, list(deep), 1, 4, 2), bias], 1, 4, 2)
    graph.subgraph.outputs = [graph.op(ADD, [graph.op(RESHAPE, [moved, graph.tensor(2)], 4, 2), bias], 4, 2)]

    graph.flatten()

    assert graph.kinds == [PRODUCT, ADD, ADD]
    assert graph.shapes(moved) == [[4, 2]]


@pytest.mark.parametrize("kind", [CONCATENATION, PRODUCT])
def test_what_another_op_needs_with_three_dimensions_keeps_them(graph, kind):
    left, right, other = graph.given(4, 3), graph.given(3, 2), graph.given(2, 4, 3)
    deep = graph.op(RESHAPE, [left, graph.tensor(3)], 1, 4, 3), graph.op(RESHAPE, [right, graph.tensor(3)], 1, 3, 2)
    product = graph.op(PRODUCT, list(deep), 1, 4, 2)
    if kind == CONCATENATION:
        last = graph.op(kind, [product, product], 2, 4, 2)
    else:
        last = graph.op(kind, [other, deep[1]], 2, 4, 2)  # two products at once, with the same right side
    graph.subgraph.outputs = [product, last]

    graph.flatten()

    assert graph.shapes(*deep, product) == [[1, 4, 3], [1, 3, 2], [1, 4, 2]]
    assert graph.kinds == [RESHAPE, RESHAPE, PRODUCT, kind]


def test_what_goes_in_or_out_keeps_its_shape(graph):
    left, right = graph.given(1, 4, 3), graph.given(1, 3, 2)
    graph.subgraph.outputs = [graph.op(PRODUCT, [left, right], 1, 4, 2)]

    graph.flatten()

    assert graph.shapes(left, right, *graph.subgraph.outputs) == [[1, 4, 3], [1, 3, 2], [1, 4, 2]]


def test_dense_layers_train_without_a_single_reshape_of_a_weight():
    model = keras.Sequential([keras.Input((16,)), layers.Dense(24, "relu"), layers.Dense(8)])
    model.compile(keras.optimizers.SGD(0.1), "mse")

    graph = read_graph(ModelFile(build(model, batch_size=4).data))

    ops = [(op.name, [graph.tensors[0][tensor].shape for tensor in op.inputs]) for op in graph.operators[0]]
    assert {len(shape) for name, shapes in ops if name == "BATCH_MATMUL" for shape in shapes} == {2}
    assert not any(shapes[0] in ((16, 24), (24, 8)) for name, shapes in ops if name == "RESHAPE")
