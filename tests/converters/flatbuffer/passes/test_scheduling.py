"""The order of ops: late, but never across what they depend on; and what runtimes are told of it."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers
from tensorflow.lite.python import schema_py_generated as schema

import keras_models
from edgefl_converters.building.building import build
from edgefl_converters.flatbuffer.graph_index import GraphIndex
from edgefl_converters.flatbuffer.passes.control_dependencies import control_edges, serialized
from edgefl_converters.flatbuffer.passes.scheduling import as_late_as_possible
from edgefl_converters.settings.options import Options
from edgefl_device_runtime.measuring import measure
from edgefl_device_runtime.training import TrainableModel

OPERATOR = schema.BuiltinOperator
HANDLE, READ, ASSIGN, ADD, CALL = (
    OPERATOR.VAR_HANDLE,
    OPERATOR.READ_VARIABLE,
    OPERATOR.ASSIGN_VARIABLE,
    OPERATOR.ADD,
    OPERATOR.CALL_ONCE,
)


class Graph:
    """A subgraph in object form; an op's kind is its `opcodeIndex`, its description the name of what it makes."""

    def __init__(self):
        self.subgraph = schema.SubGraphT()
        self.subgraph.tensors, self.subgraph.operators = [], []
        self.subgraph.inputs, self.subgraph.outputs = [], []
        self.names = {}

    def tensor(self, bytes_=4, kind=schema.TensorType.FLOAT32):
        tensor = schema.TensorT()
        tensor.shape, tensor.type = [bytes_ // 4], kind
        self.subgraph.tensors.append(tensor)
        return len(self.subgraph.tensors) - 1

    def op(self, name, kind, inputs=(), bytes_=4):
        operator = schema.OperatorT()
        operator.opcodeIndex, operator.inputs, operator.outputs = kind, list(inputs), []
        self.names[id(operator)] = name
        self.subgraph.operators.append(operator)
        if kind in (ASSIGN, CALL):
            return None
        if kind == HANDLE:
            operator.builtinOptions = schema.VarHandleOptionsT()
            operator.builtinOptions.sharedName = name
        made = self.tensor(bytes_, schema.TensorType.RESOURCE if kind == HANDLE else schema.TensorType.FLOAT32)
        operator.outputs = [made]
        return made

    def scheduled(self):
        self.subgraph.operators = as_late_as_possible(GraphIndex(self.subgraph), kind)
        return [self.names[id(operator)] for operator in self.subgraph.operators]


def kind(operator):
    return operator.opcodeIndex


@pytest.fixture
def graph():
    return Graph()


def test_updates_come_last_layer_first_each_behind_its_own_gradient_whatever_their_order(graph):
    first, last = graph.op("w1", HANDLE), graph.op("w2", HANDLE)
    one, two = graph.op("read w1", READ, [first]), graph.op("read w2", READ, [last])
    graph.subgraph.inputs = [graph.tensor()]
    mask = graph.op("mask", ADD, [one])
    hidden = graph.op("hidden", ADD, [one, *graph.subgraph.inputs])
    scores = graph.op("scores", ADD, [hidden, two])
    loss = graph.op("loss", ADD, [scores])
    back = graph.op("gradient 2", ADD, [scores])
    further = graph.op("gradient 1", ADD, [back, mask])
    graph.op("assign w1", ASSIGN, [first, further])
    graph.op("assign w2", ASSIGN, [last, back])
    graph.subgraph.outputs = [loss]

    order = graph.scheduled()

    assert order[-6:] == ["gradient 2", "assign w2", "mask", "gradient 1", "assign w1", "loss"]


def test_what_no_data_flows_into_is_updated_last(graph):
    counter, weight = graph.op("counter", HANDLE), graph.op("w", HANDLE)
    graph.subgraph.inputs = [graph.tensor()]
    graph.op("count", ASSIGN, [counter, graph.op("more", ADD, [graph.op("read counter", READ, [counter])])])
    step = graph.op("step", ADD, [graph.op("read", READ, [weight]), *graph.subgraph.inputs])
    graph.op("assign", ASSIGN, [weight, step])
    graph.subgraph.outputs = [graph.op("loss", ADD, graph.subgraph.inputs)]

    order = graph.scheduled()

    assert order.index("assign") < order.index("loss") < order.index("count")


def test_what_is_short_to_make_waits_for_what_is_long(graph):
    kept = graph.op("kept", ADD)
    mask = graph.op("mask", ADD, [kept])
    back = graph.op("back", ADD, [graph.op("from the loss", ADD, [kept])])
    graph.subgraph.outputs = [graph.op("masked", ADD, [mask, back])]

    assert graph.scheduled() == ["kept", "from the loss", "back", "mask", "masked"]


def test_a_variable_is_read_before_it_is_assigned_though_nothing_else_asks_for_that(graph):
    variable = graph.op("w", HANDLE)
    read = graph.op("read", READ, [variable])
    graph.op("assign", ASSIGN, [variable, graph.op("other", ADD)])
    later = graph.op("later", READ, [variable])
    graph.subgraph.outputs = [later, graph.op("sum", ADD, [read])]

    order = graph.scheduled()

    assert order.index("read") < order.index("assign") < order.index("later")


def test_a_variable_is_assigned_when_all_that_need_its_value_have_run(graph):
    variable = graph.op("w", HANDLE)
    read = graph.op("read", READ, [variable])
    graph.op("assign", ASSIGN, [variable, graph.op("updated", ADD, [read])])
    other = graph.op("other", HANDLE)
    graph.op("assign the other", ASSIGN, [other, graph.op("back", ADD, [read])])

    order = graph.scheduled()

    assert order.index("back") < order.index("assign")


def test_what_a_variable_is_assigned_is_made_when_all_that_need_its_value_have_run(graph):
    variable = graph.op("w", HANDLE)
    read, again = graph.op("read", READ, [variable]), graph.op("read again", READ, [variable])
    back = graph.op("back", ADD, [again])
    graph.op("assign the other", ASSIGN, [graph.op("other", HANDLE), graph.op("further back", ADD, [back])])
    gradient = graph.op("gradient", ADD, [graph.op("from the loss", ADD)])
    graph.op("assign", ASSIGN, [variable, graph.op("updated", ADD, [gradient, read])])

    order = graph.scheduled()

    assert order.index("back") < order.index("updated") < order.index("assign")


def test_what_reads_a_transposed_value_counts_as_reading_the_variable(graph):
    variable = graph.op("w", HANDLE)
    transposed = graph.op("transposed", OPERATOR.TRANSPOSE, [graph.op("read", READ, [variable])])
    back = graph.op("back", ADD, [transposed])
    graph.op("assign the other", ASSIGN, [graph.op("other", HANDLE), graph.op("further back", ADD, [back])])
    graph.op("assign", ASSIGN, [variable, graph.op("updated", ADD, [graph.op("gradient", ADD)])])

    order = graph.scheduled()

    assert order.index("back") < order.index("updated")


def test_what_needs_both_values_of_a_variable_is_no_reason_to_wait_for_itself(graph):
    variable = graph.op("w", HANDLE)
    read = graph.op("read", READ, [variable])
    updated = graph.op("updated", ADD, [read])
    graph.op("moved by", ADD, [updated, read])
    graph.op("assign", ASSIGN, [variable, updated])

    order = graph.scheduled()

    assert order.index("updated") < order.index("moved by") < order.index("assign")


def test_a_variable_that_is_assigned_what_was_read_is_no_reason_to_wait(graph):
    variable = graph.op("w", HANDLE)
    graph.op("assign", ASSIGN, [variable, graph.op("read", READ, [variable])])

    assert graph.scheduled() == ["w", "read", "assign"]


def test_nothing_that_uses_a_variable_passes_a_call(graph):
    variable = graph.op("w", HANDLE)
    graph.op("initialise", CALL)
    graph.subgraph.outputs = [graph.op("read", READ, [variable])]

    order = graph.scheduled()

    assert order.index("initialise") < order.index("read")


def test_all_ops_are_kept_whatever_they_are_for(graph):
    graph.op("a", ADD, [graph.op("b", ADD)])
    assert sorted(graph.scheduled()) == ["a", "b"]


def test_large_ops_and_ops_on_variables_keep_their_order_small_ones_may_move(graph):
    variable = graph.op("w", HANDLE)
    large = graph.op("large", ADD, bytes_=1 << 17)
    small = graph.op("small", ADD)
    graph.op("reads the large one", ADD, [large])
    graph.op("read", READ, [variable])
    graph.op("large again", ADD, [small], bytes_=1 << 20)
    graph.op("never delegated", OPERATOR.ONE_HOT, bytes_=1 << 20)

    assert control_edges(GraphIndex(graph.subgraph), kind) == [(0, 4), (1, 3), (3, 5)]


def test_what_reads_a_variable_runs_before_what_makes_its_next_value(graph):
    variable = graph.op("w", HANDLE)
    read = graph.op("read", READ, [variable])
    graph.op("back", ADD, [read])
    graph.op("assign", ASSIGN, [variable, graph.op("updated", ADD, [graph.op("gradient", ADD)])])

    edges = control_edges(GraphIndex(graph.subgraph), kind)

    assert {(2, 4), (2, 5), (1, 5)} <= set(edges)


def test_edges_are_written_as_tensorflow_reads_them():
    # Version, number of subgraphs, then for each the number of its edges and pairs of zigzag varints.
    assert serialized([[(0, 300)], []]) == bytes([1, 2, 1, 0, 0xD8, 0x04, 0])


def test_a_step_goes_back_through_the_weights_as_they_were(tmp_path):
    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.Input((64,)), layers.Dense(96, "relu"), layers.Dense(48, "relu"), layers.Dense(4)])
    model.compile(keras.optimizers.SGD(1.0), "mse")
    path = tmp_path / "model.tflite"
    path.write_bytes(build(model, batch_size=4).data)
    x, y = np.random.default_rng(1).normal(size=(4, 64)), np.ones((4, 4))

    model.train_on_batch(x, y)

    trained = TrainableModel(path, runtime="ai-edge-litert")
    trained.train_on_batch(x.astype("float32"), y.astype("float32"))
    for expected, got in zip(model.get_weights(), trained.get_weights(), strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-5)


@pytest.mark.slow
def test_ai_edge_litert_trains_a_convolutional_network_in_less_memory(tmp_path):
    def arena(built):
        path = tmp_path / "model.tflite"
        path.write_bytes(built.data)
        return next(each.arenas["train"] for each in measure(path, built.manifest) if each.runtime == "ai-edge-litert")

    options = Options(without_passes=("scheduling", "rematerialising", "control_dependencies"))
    before = build(keras_models.separable_network(), batch_size=keras_models.SEPARABLE_BATCH, options=options)

    assert arena(keras_models.built_separable_network()) < 0.85 * arena(before)
