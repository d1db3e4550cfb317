"""What federated algorithms add to a training step: the verification sees each fault, and nothing is there unasked."""

from __future__ import annotations

from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_models
from edgefl.errors import InvalidSettingError
from edgefl_converters.building import assembling
from edgefl_converters.building.building import build
from edgefl_converters.settings.options import Options
from edgefl_converters.training_step.federated_terms import FederatedTerms
from edgefl_converters.training_step.specification import specify
from edgefl_converters.training_step.tracing import _Steps
from edgefl_converters.verification.agreement import check_agreement
from edgefl_converters.verification.runtimes import Call, installed_runtimes

BATCH = keras_models.BATCH
added_to, gradient_step, copier = FederatedTerms.added_to, _Steps.gradient, assembling._Holder.copier


def without_mu(self, gradients, variables, mu):
    return added_to(self, gradients, variables, 0.0 * mu)


def with_the_correction_subtracted(self, gradients, variables, mu):
    return added_to(replace(self, correction=[-each for each in self.correction]), gradients, variables, mu)


def from_the_first_weights_for_ever(self, sources, targets):
    return copier(self, targets, targets)


def a_little_too_large(self, *tensors):
    outputs = gradient_step(self, *tensors)
    return {name: value * 1.001 if name.startswith("gradient/") else value for name, value in outputs.items()}


FAULTS = {
    "none": (FederatedTerms, "added_to", added_to, None),
    "mu is ignored": (FederatedTerms, "added_to", without_mu, "pulled training"),
    "the correction is subtracted": (FederatedTerms, "added_to", with_the_correction_subtracted, "pulled training"),
    "the reference stays": (assembling._Holder, "copier", from_the_first_weights_for_ever, "pulled training"),
    "the gradient is 0.1 % off": (_Steps, "gradient", a_little_too_large, "given gradient"),
}


@pytest.mark.parametrize(
    ("optimizer", "fault"),
    [
        ("sgd", "none"),
        ("sgd", "the correction is subtracted"),
        *(
            pytest.param("sgd", fault, marks=pytest.mark.slow)
            for fault in ("mu is ignored", "the reference stays", "the gradient is 0.1 % off")
        ),
        pytest.param("adam", "none", marks=pytest.mark.slow),
        pytest.param("adam", "mu is ignored", marks=pytest.mark.slow),
    ],
)
def test_the_verification_sees_every_fault_and_nothing_where_there_is_none(monkeypatch, optimizer, fault):
    owner, name, wrong, kind = FAULTS[fault]
    monkeypatch.setattr(owner, name, wrong)
    built = build(keras_models.mlp(optimizer), batch_size=BATCH, options=Options(algorithms=("feddyn", "fedsgd")))
    report = check_agreement(keras_models.mlp(optimizer), built.data, runtimes=installed_runtimes()[:1])
    assert {each.kind for each in report.runtimes[0].failures} == ({kind} if kind else set())


def test_without_algorithms_a_file_is_what_it_always_was():
    plain = keras_models.built("mlp")
    assert build(keras_models.mlp(), batch_size=BATCH, options=Options(algorithms=())).data == plain.data
    signatures = plain.manifest.signatures
    assert not {"gradient", "set_reference", "set_correction"} & set(signatures)
    assert {spec.name for spec in signatures["train"].inputs} >= {"sample_weight", "learning_rate"}
    assert "mu" not in {spec.name for spec in signatures["train"].inputs}


@pytest.mark.parametrize(
    ("algorithms", "signatures", "proximal"),
    [
        ("fedprox", {"set_reference"}, True),
        ("scaffold", {"set_correction"}, False),
        (["feddyn"], {"set_reference", "set_correction"}, True),
        (["fedprox", "scaffold"], {"set_reference", "set_correction"}, True),
        ("fedsgd", {"gradient"}, False),
    ],
)
def test_each_algorithm_adds_what_it_needs_and_no_more(algorithms, signatures, proximal):
    manifest = build(keras_models.mlp(), batch_size=BATCH, options=Options(algorithms=algorithms)).manifest
    assert set(manifest.signatures) - set(keras_models.built("mlp").manifest.signatures) == signatures
    assert ("mu" in {spec.name for spec in manifest.signatures["train"].inputs}) is proximal
    assert manifest.layout_hash == keras_models.built("mlp").manifest.layout_hash
    assert manifest.state == keras_models.built("mlp").manifest.state


def test_gradients_that_do_not_exist_stay_so_and_local_weights_are_left_alone():
    weights = [keras.Variable([1.0, 2.0]) for _ in range(3)]
    anchored = FederatedTerms((weights[0], weights[2]), (tf.Variable([0.0, 0.0]), tf.Variable([1.0, 1.0])))
    with_mu = anchored.added_to([tf.ones(2), tf.ones(2), None], weights, tf.constant(2.0))
    np.testing.assert_array_equal(with_mu[0], [3.0, 5.0])
    np.testing.assert_array_equal(with_mu[1], [1.0, 1.0])
    assert with_mu[2] is None


@pytest.mark.parametrize(
    ("optimizer", "options", "message"),
    [
        ("sgd", {"algorithms": "fedporx"}, r"no algorithm 'fedporx'.*Did you mean 'fedprox'\?"),
        ("sgd", {"algorithms": "FedSGD"}, r"no algorithm 'FedSGD'.*Did you mean 'fedsgd'\?"),
        ("sgd", {"algorithms": "zzz"}, "Expected one of fedprox, scaffold, feddyn, fedsgd"),
        ("adam", {"algorithms": "scaffold"}, r"expects plain SGD .* the optimizer Adam\. .*feddyn"),
        (keras.optimizers.SGD(0.1, momentum=0.9), {"algorithms": "scaffold"}, "SGD with momentum 0.9"),
        ("sgd", {"algorithms": "fedsgd", "local": "dense/*"}, r"trains nothing on the device.*`local`"),
    ],
)
def test_an_algorithm_that_does_not_exist_or_does_not_fit_is_refused(optimizer, options, message):
    with pytest.raises(InvalidSettingError, match=message):
        build(keras_models.mlp(optimizer), batch_size=BATCH, options=Options(**options))


def test_adam_may_be_used_with_what_has_no_formula_for_it():
    specify(keras_models.mlp("adam"), options=Options(algorithms=("fedprox", "feddyn", "fedsgd")))


@pytest.fixture(scope="module")
def noisy(tmp_path_factory):
    """A file with dropout and normalisation that gives its gradient, as a path with its manifest."""
    keras.utils.set_random_seed(1)
    stack = [keras.Input((6,)), layers.Dense(8, name="body"), layers.BatchNormalization(name="norm")]
    model = keras.Sequential([*stack, layers.Dropout(0.5), layers.Dense(4, activation="softmax", name="head")])
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    built = build(model, batch_size=BATCH, options=Options(algorithms="fedsgd"))
    report = check_agreement(model, built.data)
    report.require()
    assert {each.name for each in report.runtimes[0].comparisons if each.kind == "given gradient"} == {
        f"{layer}/{name}"
        for layer, name in (("body", "kernel"), ("body", "bias"), ("head", "kernel"), ("head", "bias"))
    } | {"norm/gamma", "norm/beta"}
    path = tmp_path_factory.mktemp("noisy") / "model.tflite"
    path.write_bytes(built.data)
    return path, built.manifest


@pytest.mark.parametrize("runtime", installed_runtimes(), ids=lambda runtime: runtime.name)
def test_the_gradient_draws_by_its_seed_and_changes_nothing(noisy, runtime):
    path, manifest = noisy
    generator = np.random.default_rng(0)
    data = {"y": generator.integers(0, 4, BATCH).astype(np.int32), "sample_weight": np.ones(BATCH, np.float32)}
    data[manifest.inputs[0]] = generator.normal(size=(BATCH, 6)).astype(np.float32)

    def gradient(seed):
        given = {**data, "seed": np.array([seed], np.int32)}
        return Call("gradient", {spec.tensor: given[spec.name] for spec in manifest.signatures["gradient"].inputs})

    calls = [Call("get_state"), gradient(1), gradient(2), gradient(1), Call("get_state")]
    before, first, other, again, after = runtime.run(path, calls)

    keys = {spec.name: spec.tensor for spec in manifest.signatures["gradient"].outputs}
    kernel = keys["gradient/head/kernel"]
    assert np.any(first[kernel] != other[kernel])
    for key in first:
        np.testing.assert_array_equal(first[key], again[key])
    assert before.keys() == after.keys()
    for key, value in before.items():
        np.testing.assert_array_equal(after[key], value)
