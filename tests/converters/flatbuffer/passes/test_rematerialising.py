"""What waits for the backward pass and is cheap is computed again, where that lowers the peak; bits stay the same."""

from __future__ import annotations

import subprocess
import sys

import pytest
from tensorflow.lite.python import schema_py_generated as schema

import keras_models
from edgefl_converters.building.building import build
from edgefl_converters.flatbuffer.graph_index import GraphIndex
from edgefl_converters.flatbuffer.passes.rematerialising import compute_again
from edgefl_converters.flatbuffer.tensor_sizes import LARGE
from edgefl_converters.settings.options import Options
from edgefl_device_runtime.measuring import measure

OPERATOR = schema.BuiltinOperator
TIMES, PLUS, PRODUCT, READ = OPERATOR.MUL, OPERATOR.ADD, OPERATOR.BATCH_MATMUL, OPERATOR.READ_VARIABLE

TRAIN = """
import hashlib, sys
import numpy as np
from edgefl_device_runtime.training import TrainableModel
model = TrainableModel(sys.argv[1], runtime=sys.argv[2])
for step in range(3):
    generator = np.random.default_rng(step)
    x, y = generator.normal(size=(16, 48, 48, 3)), generator.normal(size=(16, 4))
    print(model.train_on_batch(x.astype("float32"), y.astype("float32"))["loss"].hex())
print(hashlib.sha256(np.ascontiguousarray(model.weights)).hexdigest())
"""


class Graph:
    """A subgraph in object form; an op's kind is its `opcodeIndex`, its description the name of what it makes."""

    def __init__(self):
        self.subgraph = schema.SubGraphT()
        self.subgraph.tensors, self.subgraph.operators = [], []
        self.subgraph.inputs, self.subgraph.outputs = [], []

    def op(self, name, kind, *inputs, size=LARGE):
        tensor, operator = schema.TensorT(), schema.OperatorT()
        tensor.shape, tensor.name = [size // 4], name
        self.subgraph.tensors.append(tensor)
        operator.opcodeIndex, operator.inputs = kind, list(inputs)
        operator.outputs = [len(self.subgraph.tensors) - 1]
        self.subgraph.operators.append(operator)
        return operator.outputs[0]

    def step(self, *, scale=READ, size=LARGE, needs_features=True, early=True):
        """A layer, what follows it until the loss, and its gradient."""
        vector = self.op("vector", scale, size=64)
        features = self.op("features", PRODUCT, size=size)
        scaled = self.op("scaled", TIMES, features, vector, size=size)
        activation = self.op("activation", PLUS, scaled, vector, size=size)
        top = self.op("top", PRODUCT, *([activation] if early else []), size=size)
        loss = self.op("loss", PRODUCT, self.op("wide", PRODUCT, top, size=4 * size), size=4)
        back = self.op("back", PRODUCT, loss, activation, size=size // 2)
        last = self.op("last", PRODUCT, back, *([features] if needs_features else []), size=4)
        self.subgraph.outputs = [loss, last]
        return vector

    def computed(self):
        compute_again(GraphIndex(self.subgraph), lambda operator: operator.opcodeIndex)
        return [self.subgraph.tensors[operator.outputs[0]].name for operator in self.subgraph.operators]


@pytest.fixture
def graph():
    return Graph()


def test_a_large_activation_is_computed_again_right_before_its_late_use(graph):
    graph.step(scale=TIMES)

    assert graph.computed()[-4:] == ["scaled", "activation", "back", "last"]
    *_, scaled, activation, back, _ = graph.subgraph.operators
    first = graph.subgraph.operators[3]
    assert activation.inputs[0] == scaled.outputs[0] != first.inputs[0]
    assert activation.outputs[0] == back.inputs[1] != first.outputs[0]
    assert graph.subgraph.operators[4].inputs == first.outputs


@pytest.mark.parametrize(
    "different",
    [
        pytest.param({"needs_features": False}, id="nothing that it could be made of is there"),
        pytest.param({"size": LARGE // 2}, id="it is small"),
        pytest.param({"early": False}, id="it does not wait"),
        pytest.param({}, id="the variable that it was made with may have changed"),
    ],
)
def test_what_would_gain_nothing_or_be_wrong_is_not_computed_again(graph, different):
    graph.step(**({"scale": TIMES} if different else {}), **different)
    before = list(graph.subgraph.operators)

    graph.computed()

    assert graph.subgraph.operators == before


def test_the_value_of_a_variable_that_is_used_later_still_serves(graph):
    vector = graph.step()
    graph.subgraph.outputs.append(graph.op("updated", TIMES, vector, size=64))

    assert graph.computed()[-5:] == ["scaled", "activation", "back", "last", "updated"]


def test_what_does_not_lower_the_peak_is_left_out(graph):
    graph.step(scale=TIMES)
    graph.subgraph.outputs.append(graph.op("elsewhere", PRODUCT, graph.op("huge", PRODUCT, size=100 * LARGE), size=4))
    before = list(graph.subgraph.operators)

    graph.computed()

    assert graph.subgraph.operators == before


@pytest.mark.slow
def test_both_runtimes_train_to_the_same_bits_and_ai_edge_litert_in_less_memory(tmp_path):
    def made(built, name):
        path = tmp_path / name
        path.write_bytes(built.data)
        arenas = {each.runtime: each.arenas["train"] for each in measure(path, built.manifest)}
        steps = {
            runtime: subprocess.run(
                [sys.executable, "-c", TRAIN, path, runtime], check=True, capture_output=True
            ).stdout
            for runtime in arenas
        }
        return arenas, steps

    arenas, steps = made(keras_models.built_separable_network(), "again.tflite")
    options = Options(without_passes=("rematerialising",))
    before = build(keras_models.separable_network(), batch_size=keras_models.SEPARABLE_BATCH, options=options)
    arenas_before, steps_before = made(before, "before.tflite")

    assert steps == steps_before
    assert all(len(printed.split()) == 4 for printed in steps.values())
    assert arenas["ai-edge-litert"] < 0.9 * arenas_before["ai-edge-litert"]
