"""A conversion says where its time goes, and does nothing twice."""

from __future__ import annotations

import collections
import itertools

import keras
import pytest
import tensorflow as tf
from keras import layers
from tensorflow.lite.python import schema_py_generated as schema
from tensorflow.python.framework import func_graph

import edgefl
from edgefl.cli.main import main
from edgefl_converters import stages
from edgefl_converters.building.building import build
from edgefl_converters.flatbuffer import graph_index
from edgefl_converters.stages import OTHER, measured_stages, stage
from edgefl_converters.training_step.specification import specify
from edgefl_converters.training_step.tracing import trace


def dense(depth=2):
    model = keras.Sequential([keras.Input((3,)), *(layers.Dense(3, "relu") for _ in range(depth)), layers.Dense(1)])
    model.compile("adam", "mse")
    return model


@pytest.fixture
def clock():
    """A clock that goes on by a second whenever it is looked at."""
    return map(float, itertools.count()).__next__


def test_a_stage_inside_another_is_not_counted_twice(clock):
    with measured_stages(clock) as measured, stage("outer"), stage("inner"):
        pass

    assert measured.seconds == {OTHER: 2.0, "outer": 2.0, "inner": 1.0}
    assert str(measured).splitlines()[-1].split() == ["1.0", "s", "inner"]


def test_whoever_measures_outside_is_told_all(clock):
    with measured_stages(clock) as outside, measured_stages() as inside, stage("one"):
        pass

    assert inside is outside
    assert set(outside.seconds) == {OTHER, "one"}


def test_a_stage_that_fails_ends():
    with measured_stages() as measured:
        with pytest.raises(ValueError, match="failed"), stage("failing"):
            raise ValueError("failed")
        with stage("next"):
            pass

    assert list(measured.seconds) == [OTHER, "failing", "next"]


def test_where_nobody_measures_nothing_is_kept():
    with stage("unseen"):
        assert stages._CURRENT.get() is None


def test_a_conversion_says_how_long_each_stage_took(tmp_path):
    result = edgefl.convert(dense(), tmp_path / "model.tflite", batch_size=2)

    runtimes = {each["name"] for each in result.report["verification"]["runtimes"]}
    assert {"loading", "tracing", "emitting", "saving", "converting", "passes", "checking ops"} <= set(result.seconds)
    assert {"Keras in float32", "Keras in float64", *runtimes} <= set(result.seconds)
    assert min(result.seconds.values()) >= 0.0


def test_the_command_says_it_where_it_is_asked_to_and_where_the_model_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    model = keras.Sequential([keras.Input((3,)), layers.Dense(1)])
    model.compile("sgd", "mse")
    model.save("model.keras")

    with pytest.raises(SystemExit):
        main(["convert", "model.keras", "-o", "no.tflite", "--batch-size", "2", "--verbose", "--micro-batch", "3"])

    told = capsys.readouterr().err
    assert " s  loading" in told
    assert "took " in told
    assert not (tmp_path / "no.tflite").exists()


def test_layers_are_run_twice_while_a_model_is_traced():
    calls = collections.Counter()

    class Counted(layers.Layer):
        def call(self, x, training=False):
            calls[bool(training)] += 1
            return 2.0 * x

    given = keras.Input((3,))
    model = keras.Model(given, layers.Dense(1)(Counted()(given)))
    model.compile("sgd", "mse")
    specification = specify(model, batch_size=2)
    calls.clear()

    traces = trace(specification)

    assert calls == {True: 1, False: 1}  # training; evaluating and predicting as one
    assert traces.functions["infer"].graph is traces.functions["evaluate"].graph
    assert traces.functions["infer"].outputs == tuple(port.name for port in specification.outputs)
    assert not set(traces.functions["infer"].outputs) & set(traces.functions["evaluate"].outputs)


def test_a_layer_that_counts_its_calls_is_traced_for_each_as_each_moves_it():
    class Counting(layers.Layer):
        def build(self, shape):
            self.count = self.add_weight(shape=(1,), initializer="zeros", trainable=False)

        def call(self, x):
            self.count.assign(self.count + 1.0)
            return x + 0.0 * self.count

    given = keras.Input((3,))
    model = keras.Model(given, layers.Dense(1)(Counting()(given)))
    model.compile("sgd", "mse")

    traces = trace(specify(model, batch_size=2))

    assert traces.functions["infer"].graph is not traces.functions["evaluate"].graph


def counted(monkeypatch, depth):
    """How often a conversion of a model so deep does what takes long, without its verification."""
    counts = collections.Counter()

    def count(owner, name):
        original = getattr(owner, name)

        def counting(*arguments, **settings):
            counts[name] += 1
            return original(*arguments, **settings)

        monkeypatch.setattr(owner, name, counting)

    count(func_graph, "func_graph_from_py_func")
    count(tf.saved_model, "save")
    count(schema.Model, "GetRootAs")
    count(schema.OperatorT, "InitFromObj")
    count(graph_index.GraphIndex, "__init__")
    build(dense(depth), batch_size=2)
    monkeypatch.undo()
    return counts


def test_what_takes_long_is_done_as_often_for_a_deep_model_as_for_a_small_one(monkeypatch):
    few, many = counted(monkeypatch, 1), counted(monkeypatch, 5)

    assert few == many
    assert few["save"] == 1
    assert few["InitFromObj"] == 0  # ops are read without the generated code
