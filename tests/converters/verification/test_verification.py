"""The parts of verification on their own: reading gradients off steps, made-up data, judging, child processes."""

from __future__ import annotations

from types import SimpleNamespace

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import layers

import keras_models
from edgefl.errors import MissingDependencyError, RuntimeFailure, UnsupportedModelError, VerificationError
from edgefl.model_file import ModelFile
from edgefl.targets import TargetRuntime
from edgefl_converters.building.building import build
from edgefl_converters.training_step.specification import specify
from edgefl_converters.verification import agreement as verifying
from edgefl_converters.verification import judging, runtimes
from edgefl_converters.verification.judging import Comparison
from edgefl_converters.verification.made_up_batches import Batch, draw_batches
from edgefl_converters.verification.measuring import look_closer, measure
from edgefl_converters.verification.probing import Probe
from edgefl_converters.verification.reference import Reference
from edgefl_converters.verification.report import RuntimeReport, VerificationReport
from edgefl_converters.verification.runtimes import Call, Runtime, UnusableRuntimeError, installed_runtimes

FLOATS = st.floats(-100, 100, width=32).filter(lambda value: value == 0 or abs(value) > 1e-6)


@given(st.lists(st.tuples(FLOATS, FLOATS), min_size=1, max_size=9))
def test_a_step_of_sgd_shows_the_gradient_to_six_digits(pairs):
    weights, gradient = (np.array(column, np.float32) for column in zip(*pairs, strict=True))
    probe = Probe.of("SGD", 0.01, has_slots=False)
    after = weights - np.float32(probe.rate) * gradient

    shown = probe.reveal({"w": after.astype(np.float64) - weights}, {}, frozenset())["w"]

    # Half a unit of the last place of what the step adds, and of the weight scaled down by the rate.
    np.testing.assert_allclose(shown, gradient, rtol=2.0**-22, atol=100 * 2.0**-22 / probe.rate)


def test_an_adaptive_optimizer_shows_its_slots_and_every_statistic_its_movement():
    probe = Probe.of("Adam", 0.01, has_slots=True)
    shown = probe.reveal({"w": np.ones(2), "mean": np.ones(1)}, {"m": np.zeros(2)}, frozenset({"mean"}))
    assert set(shown) == {"m", "mean"}


def functional():
    words, numbers = keras.Input((3,), dtype="int32", name="words"), keras.Input((2,), name="numbers")
    tokens_as_floats = keras.Input((2,), name="tokens")
    embedded = layers.Concatenate()(
        [layers.Flatten()(layers.Embedding(5, 2)(words)), layers.Flatten()(layers.Embedding(9, 2)(tokens_as_floats))]
    )
    both = layers.Concatenate()([embedded, numbers])
    kind = layers.Dense(4, activation="softmax", name="kind")(both)
    flag = layers.Dense(1, activation="sigmoid", name="flag")(both)
    model = keras.Model([words, tokens_as_floats, numbers], [kind, flag])
    model.compile("sgd", ["sparse_categorical_crossentropy", "mse"])
    return model


def test_made_up_data_stays_within_vocabularies_and_classes():
    specification = specify(functional(), batch_size=64)
    batches = draw_batches(specification, 3, np.random.default_rng(0))
    for batch in batches:
        words, tokens, numbers = batch.inputs
        assert (words.dtype, tokens.dtype, numbers.dtype) == (np.int32, np.float32, np.float32)
        assert set(np.unique(words)) <= set(range(5))
        assert set(np.unique(tokens)) <= set(range(9))
        assert len(np.unique(numbers)) == numbers.size
        assert set(np.unique(batch.targets[0])) <= set(range(4))
        assert 0 < batch.seed < 2**31
    assert len({batch.seed for batch in batches}) == 3


@pytest.mark.parametrize(
    ("loss", "units", "law"),
    [
        ("categorical_crossentropy", 3, lambda y: np.all(y.sum(-1) == 1)),
        ("binary_crossentropy", 1, lambda y: set(np.unique(y)) == {0, 1}),
        ("poisson", 2, lambda y: np.all(y > 0)),
        ("mse", 2, lambda y: np.any(y < 0)),
    ],
)
def test_made_up_targets_are_what_the_loss_is_defined_on(loss, units, law):
    model = keras.Sequential([keras.Input((2,)), layers.Dense(units, activation="sigmoid")])
    model.compile("sgd", loss)
    (batch,) = draw_batches(specify(model, batch_size=32), 1, np.random.default_rng(0))
    assert law(batch.targets[0])


def test_the_float64_reference_is_the_same_function_and_leaves_the_original_alone():
    model = keras_models.cnn("adam")
    specification = specify(model, batch_size=4)
    before = [np.array(variable) for variable in model.variables]
    (batch,) = draw_batches(specification, 1, np.random.default_rng(0))
    exact = Reference(specification, "float64")
    exact.reset()

    (output,) = exact.predict(batch)

    assert output.dtype == np.float64
    np.testing.assert_allclose(output, model(batch.inputs[0]), atol=1e-6)
    exact.train(batch, 0.1)
    assert keras.config.floatx() == "float32"
    for old, variable in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(old, np.array(variable))


def training_spread(activation, pool):
    """How far Keras disagrees with itself after the training steps: at first, and when looked at closer."""
    keras.utils.set_random_seed(1)
    stack = [keras.Input((16, 16, 1)), layers.Conv2D(32, 5, padding="same", activation=activation), pool(4)]
    model = keras.Sequential([*stack, layers.Flatten(), layers.Dense(64, activation), layers.Dense(4, "softmax")])
    model.compile(keras.optimizers.SGD(0.2), "sparse_categorical_crossentropy")
    file = ModelFile(build(model, batch_size=32).data)
    specification, generator = specify(model, batch_size=32), np.random.default_rng(3)
    experiment = verifying._experiment(specification, file, file.manifest, generator, "normal")
    experiment, expectation = measure(specification, file.manifest, experiment, generator)
    closer = look_closer(specification, file.manifest, experiment, expectation, generator)

    def spread(of):
        return max(of.spread("moved", name, lambda array: float(np.abs(array).max())) for name in of.exact.moved)

    for name, value in expectation.exact.probe.items():
        np.testing.assert_array_equal(closer.plain.probe[name], expectation.plain.probe[name])
        assert closer.spread("probe", name, np.linalg.norm) == expectation.spread("probe", name, np.linalg.norm)
        assert value.dtype == np.float64
    return spread(expectation), spread(closer)


def test_a_closer_look_finds_the_kinks_of_a_network_that_has_some():
    first, closer = training_spread("relu", layers.MaxPooling2D)
    assert closer > 10 * first


def test_a_closer_look_does_not_excuse_a_smooth_network():
    _, closer = training_spread("tanh", layers.AveragePooling2D)
    assert closer < 1e-5


@pytest.mark.parametrize(
    ("failed", "expected"),
    [((), False), (("training",), True), (("training", "loss"), True), (("training", "gradient"), False)],
)
def test_only_a_difference_in_later_steps_is_looked_at_closer(failed, expected):
    kinds = ("gradient", "infer", "training", "loss")
    comparisons = [Comparison(kind, "kernel", 1.0 if kind in failed else 0.0, 0.5) for kind in kinds]
    assert verifying._may_be_kinks(comparisons) is expected


@pytest.mark.parametrize(("apart", "allowed"), [(0.001, 0.008), (0.02, 0.5), (0.5, 4.0), (1.5, np.inf)])
def test_the_less_keras_repeats_its_own_training_the_less_it_is_compared(apart, allowed):
    """`apart`: how far two of Keras's own runs end from each other, where the parameter moved by 1."""
    start, runs = np.zeros(2, np.float32), [np.array([1.0, 0.0]), np.array([1.0, apart])]
    plain, exact = (SimpleNamespace(moved={"kernel": run}) for run in runs)
    expectation = SimpleNamespace(plain=plain, exact=exact, disturbed=[])
    experiment = SimpleNamespace(batches=[None], initial={"kernel": start})
    found = SimpleNamespace(moved={"kernel": np.array([1.0, 100.0])})
    (comparison,) = judging._movement("training", "moved", experiment, expectation, found)
    assert comparison.error == 100.0
    assert comparison.limit == pytest.approx(allowed)


class Plain(keras.Model):
    """Takes none of the arguments that Keras adds to a configuration."""

    def __init__(self):
        super().__init__()
        self.hidden, self.out = layers.Dense(4, activation="relu"), layers.Dense(2)

    def call(self, x):
        return self.out(self.hidden(x))


def test_a_subclassed_model_is_rebuilt_by_its_constructor():
    model = Plain()
    x = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    expected = model(x)
    model.compile("sgd", "mse")
    specification = specify(model, batch_size=4)
    exact = Reference(specification, "float64")
    exact.reset()

    (output,) = exact.predict(Batch((x,), (), seed=1))

    assert output.dtype == np.float64
    np.testing.assert_allclose(output, expected, atol=1e-6)


def test_a_model_that_keras_cannot_rebuild_is_compared_with_itself_and_put_back():
    class Needy(layers.Layer):
        def __init__(self, needed, **options):
            super().__init__(**options)
            self.dense = layers.Dense(needed)

        def call(self, x):
            return self.dense(x)

    model = keras.Sequential([keras.Input((2,)), Needy(3)])
    model.compile("sgd", "mse")
    Needy.get_config = lambda self: {"name": self.name}
    specification = specify(model, batch_size=4)
    with pytest.raises(UnsupportedModelError, match="Keras cannot rebuild the model in float64"):
        Reference(specification, "float64")
    before = [np.array(variable) for variable in model.variables]
    reference = Reference(specification, "float32")
    batch = Batch((np.ones((4, 2), np.float32),), (np.zeros((4, 3), np.float32),), seed=1)
    reference.train(batch, 0.1)
    assert not np.array_equal(before[0], model.variables[0])
    reference.close()
    for old, variable in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(old, variable)


@pytest.mark.parametrize(
    ("error", "limit", "passed"), [(0.0, 0.0, True), (1.0, 2.0, True), (3.0, 2.0, False), (float("nan"), 2.0, False)]
)
def test_a_figure_that_is_not_a_number_does_not_pass(error, limit, passed):
    assert Comparison("gradient", "w", error, limit).passed is passed


def report(*each):
    return VerificationReport("float64", 0.1, 10, 3, each)


def test_a_verification_without_any_runtime_does_not_pass():
    with pytest.raises(MissingDependencyError, match=r"No TFLite runtime.*numpy 2"):
        report(RuntimeReport("tflite-runtime", "2.14.0", False, "It does not work with numpy 2.", (), ())).require()
    with pytest.raises(MissingDependencyError, match="None is installed"):
        report().require()


@pytest.mark.parametrize("has_wheel", [True, False])
def test_a_runtime_that_has_no_wheel_for_this_python_is_not_to_be_installed(monkeypatch, has_wheel):
    monkeypatch.setattr(TargetRuntime, "has_wheel", lambda self, python=None: has_wheel)
    with pytest.raises(MissingDependencyError, match="expected tflite-runtime") as refused:
        VerificationReport("float64", 0.1, 10, 3, (), target="tflite-2.14").require()
    assert ("Install one with" in refused.value.hint) == has_wheel
    assert ("Convert with another Python, or with `target='all'`" in refused.value.hint) != has_wheel


def test_the_complaint_names_the_failed_parameter_closest_to_the_output():
    figures = [Comparison("gradient", name, error, 1e-5) for name, error in (("a", 1.0), ("b", 1.0), ("c", 0.0))]
    failed = RuntimeReport("ai-edge-litert", "2", True, "", [Comparison("loss", "0 loss", 1.0, 0.1), *figures], ())
    with pytest.raises(VerificationError, match=r"gradient of b: error 1, allowed 1e-05.*and 2 more"):
        report(failed).require()


def test_a_broken_law_alone_fails_the_verification():
    failed = RuntimeReport("ai-edge-litert", "2", True, "", (), ["set_state restores training"])
    with pytest.raises(VerificationError, match="breaks the law that set_state restores training"):
        report(failed).require()


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("runtimes") / "model.tflite"
    path.write_bytes(keras_models.built("mlp").data)
    return path


@pytest.mark.parametrize("runtime", installed_runtimes(), ids=lambda runtime: runtime.name)
def test_outputs_can_be_carried_into_later_calls_and_interpreters_begin_anew(file, runtime):
    def carried(index):
        return {key: (index, key) for key in first}

    (first,) = runtime.run(file, [Call("get_weights")])
    doubled = {key: value * 2 for key, value in first.items()}
    calls = [
        Call("get_weights"),
        Call("set_weights", doubled),
        Call("get_weights"),
        Call("set_weights", carried=carried(0)),
        Call("get_weights"),
        Call("set_weights", doubled),
        Call("get_weights", fresh=True),
    ]
    answers = runtime.run(file, calls)
    for key, value in first.items():
        np.testing.assert_array_equal(answers[2][key], value * 2)
        np.testing.assert_array_equal(answers[4][key], value)
        np.testing.assert_array_equal(answers[6][key], value)


def test_a_runtime_that_refuses_the_model_says_why(tmp_path):
    path = tmp_path / "model.tflite"
    path.write_bytes(b"nonsense" * 20)
    for runtime in installed_runtimes():
        with pytest.raises(RuntimeFailure, match=f"{runtime.name}.*fails on the model"):
            runtime.run(path, [Call("train")])


def test_a_runtime_that_cannot_be_imported_is_unusable(tmp_path, monkeypatch):
    shadow = tmp_path / "tflite_runtime"
    shadow.mkdir()
    (shadow / "__init__.py").write_text("raise ImportError('numpy 2 is not supported')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(UnusableRuntimeError, match="numpy 2 is not supported"):
        Runtime("tflite-runtime", "2.14.0").run(tmp_path / "model.tflite", [])


def test_a_runtime_that_dies_is_reported_with_the_signal(file, tmp_path, monkeypatch):
    shadow = tmp_path / "tflite_runtime"
    shadow.mkdir()
    (shadow / "__init__.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(RuntimeFailure, match="killed by SIGSEGV"):
        Runtime("tflite-runtime", "2.14.0").run(file, [])


def test_a_runtime_that_hangs_is_given_up(file, tmp_path, monkeypatch):
    shadow = tmp_path / "tflite_runtime"
    shadow.mkdir()
    (shadow / "__init__.py").write_text("import threading; threading.Event().wait()")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(runtimes, "_SECONDS", 0.5)
    with pytest.raises(RuntimeFailure, match="did not finish"):
        Runtime("tflite-runtime", "2.14.0").run(file, [])


def test_a_job_holds_each_array_once(tmp_path):
    array = np.zeros(1000, np.float32)
    runtimes._write_job(tmp_path / "job.npz", [Call("train", {"x": array}) for _ in range(50)])
    assert (tmp_path / "job.npz").stat().st_size < 3 * array.nbytes


def test_a_metric_that_keras_cannot_trace_is_named_by_where_it_decides():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2)])
    model.compile("sgd", "mse", metrics=[keras.metrics.R2Score(num_regressors=1)])
    with pytest.raises(VerificationError, match=r"in result \(regression_metrics.py") as caught:
        verifying.check_agreement(model, build(model, batch_size=4).data, runtimes=[])
    assert "num_regressors" in caught.value.hint
