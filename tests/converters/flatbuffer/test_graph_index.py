"""Who makes and reads each tensor, shared by all passes for as long as it is true."""

from __future__ import annotations

import pytest
from tensorflow.lite.python import schema_py_generated as schema

from edgefl_converters.flatbuffer.graph_index import GraphIndex
from edgefl_converters.flatbuffer.pass_context import PassContext


def op(inputs, outputs):
    operator = schema.OperatorT()
    operator.inputs, operator.outputs = inputs, outputs
    return operator


@pytest.fixture
def subgraph():
    """Two ops: the second reads what the first makes twice, and tensor 0."""
    subgraph = schema.SubGraphT()
    subgraph.operators = [op([0], [1]), op([1, 0, 1], [2])]
    return subgraph


@pytest.fixture
def context():
    return PassContext(None, "all")


def test_an_op_that_reads_a_tensor_twice_counts_twice(subgraph):
    index = GraphIndex(subgraph)

    first, second = subgraph.operators
    assert index.readers(1) == [second, second]
    assert index.readers(0) == [first, second]
    assert (index.maker(1), index.maker(0)) == (first, None)
    assert index.readers(2) == []


def test_passes_are_given_one_index_while_nothing_changes(subgraph, context):
    assert context.index(subgraph) is context.index(subgraph)


def reorder(subgraph):
    subgraph.operators = subgraph.operators[::-1]


def read_another(subgraph):
    subgraph.operators[1].inputs = [1, 0, 0]


def read_another_in_place(subgraph):
    subgraph.operators[1].inputs[2] = 0


def make_another(subgraph):
    subgraph.operators[1].outputs = [3]


def append(subgraph):
    subgraph.operators.append(op([2], [3]))


def replace(subgraph):
    subgraph.operators[0] = op([0], [1])


@pytest.mark.parametrize("change", [reorder, read_another, read_another_in_place, make_another, append, replace])
def test_an_index_is_made_anew_once_the_graph_changed_however_that_was_done(subgraph, context, change):
    before = context.index(subgraph)
    change(subgraph)

    after = context.index(subgraph)
    assert after is not before
    assert [after.maker(tensor) for tensor in range(4)] == [GraphIndex(subgraph).maker(tensor) for tensor in range(4)]
    assert [after.readers(tensor) for tensor in range(4)] == [
        GraphIndex(subgraph).readers(tensor) for tensor in range(4)
    ]


def test_an_order_that_is_only_considered_leaves_the_subgraph_as_it_is(subgraph):
    first, second = subgraph.operators
    considered = GraphIndex(subgraph, [second, first])

    assert considered.made_at == {2: 0, 1: 1}
    assert subgraph.operators == [first, second]
    assert not considered.is_current()
