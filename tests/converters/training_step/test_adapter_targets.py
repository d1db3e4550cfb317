"""Low-rank adapters instead of weights: which layers get them, what is in the file, and the way back."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

import edgefl
from edgefl.errors import InvalidSettingError, ModelError, UnsupportedModelError
from edgefl.model_file import ModelFile
from edgefl_converters import FineTuning
from edgefl_converters.models.adapter_layers import adapter_variables
from edgefl_converters.models.named_model import NamedModel
from edgefl_converters.training_step.adapter_targets import with_adapters
from edgefl_converters.training_step.selection import fine_tuned
from interpreters import EXPECTED, each_interpreter

spec = importlib.util.spec_from_file_location("lora_models", Path(__file__).parents[1] / "lora_models.py")
lora_models = importlib.util.module_from_spec(spec)
spec.loader.exec_module(lora_models)
TOKENS = lora_models.TOKENS

TUNING = FineTuning(lora_rank=2, lora_alpha=6, trainable="head/bias")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The ordinary model as a file."""
    path = tmp_path_factory.mktemp("lora") / "base.keras"
    lora_models.plain().save(path)
    return path


@pytest.fixture(scope="module")
def converted(base):
    """Adapters in every kind of layer, verified on both runtimes."""
    return edgefl.convert(str(base), base.with_name("lora.tflite"), batch_size=4, fine_tuning=TUNING)


def small(**options):
    keras.utils.set_random_seed(1)
    stack = [keras.Input((4,)), layers.Dense(5, name="body", **options), layers.BatchNormalization(name="norm")]
    model = keras.Sequential([*stack, layers.Dense(3, name="head")])
    model.compile("sgd", "mse")
    return model


def test_only_adapters_and_what_is_named_beside_them_are_parameters(converted):
    manifest = converted.manifest
    others = {each.name for each in manifest.parameters if "/lora_" not in each.name}
    assert others == {"head/bias"}
    layers_with_adapters = {each.name.rpartition("/")[0] for each in manifest.parameters} - {"head"}
    assert {
        "embedding",
        "einsum",
        "conv",
        "dense",
        "attention/query",
        "attention/attention_output",
    } < layers_with_adapters
    assert manifest.fine_tuning == {"trainable": ["head/bias"], "lora": {"rank": 2, "alpha": 6, "targets": ["*"]}}
    assert manifest.layout.size < sum(int(np.prod(each.shape)) for each in lora_models.plain().weights) / 2


def test_every_kind_of_layer_trains_as_in_keras_on_both_runtimes(converted):
    verification = converted.report["verification"]
    assert verification["passed"]
    assert [each["ran"] for each in verification["runtimes"]] == [True] * len(EXPECTED)


def test_it_is_verified_against_the_model_without_adapters(base, converted):
    report = edgefl.verify(converted.path, str(base))
    assert all(each.passed for each in report.runtimes)


TRAIN = """
import sys
import numpy as np
import edgefl
model = edgefl.TrainableModel(sys.argv[1], runtime=sys.argv[2])
tokens, y = np.load("tokens.npy"), np.arange(8) % 3
losses = model.fit(tokens, y, epochs=20, learning_rate=0.02, seed=1).history["loss"]
named = {p.name: v for p, v in zip(model.manifest.parameters, model.get_weights())}
np.savez("trained.npz", **named)
np.savez("predicted.npz", predicted=model.predict(tokens), losses=losses)
"""


@pytest.mark.parametrize("runtime", each_interpreter())
def test_what_a_device_trained_comes_back_merged_with_the_same_predictions(base, converted, tmp_path, runtime):
    np.save(tmp_path / "tokens.npy", TOKENS)
    command = [sys.executable, "-c", TRAIN, str(converted.path), runtime]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    with np.load(tmp_path / "predicted.npz") as arrays:
        predicted, losses = arrays["predicted"], arrays["losses"]

    edgefl.export(converted.path, tmp_path / "trained.npz", tmp_path / "merged.keras", base=str(base))

    assert losses[-1] < 0.7 * losses[0]
    merged = keras.saving.load_model(tmp_path / "merged.keras")
    assert not adapter_variables(merged)
    np.testing.assert_allclose(merged.predict(TOKENS, verbose=0), predicted, atol=1e-5)
    # An adapter as Keras counts it: twice the product would be another model.
    kept = lora_models.plain()
    with fine_tuned(kept, TUNING, own=True), np.load(tmp_path / "trained.npz") as values:
        for name, variable in NamedModel(kept).variables.items():
            if name in values:
                variable.assign(values[name])
        np.testing.assert_allclose(kept.predict(TOKENS, verbose=0), predicted, atol=1e-5)


def test_a_model_of_the_user_gets_no_adapters():
    model = small()
    names, before = list(NamedModel(model).variables), [np.array(each) for each in model.variables]
    with fine_tuned(model, FineTuning(lora_rank=2)) as adapted:
        assert adapted.model is not model
        assert len(adapter_variables(adapted.model)) == 4
    assert list(NamedModel(model).variables) == names
    assert not model.layers[0].lora_enabled
    for old, variable in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(old, variable)


def test_a_model_that_nobody_else_has_gets_them_itself():
    model = small()
    with fine_tuned(model, FineTuning(lora_rank=2), own=True) as adapted:
        assert adapted.model is model
        assert len(model.trainable_variables) == 4


def lora(model, **settings):
    with fine_tuned(model, FineTuning(lora_rank=2, **settings)) as adapted:
        return {adapted.name_of(each) for each in adapted.model.trainable_variables}


def test_patterns_choose_the_layers_and_other_weights_can_be_trained_beside():
    body = {"body/lora_kernel_a", "body/lora_kernel_b"}
    assert lora(small(), lora_targets="body") == body
    assert lora(small(), lora_targets="body", trainable="head") == body | {"head/kernel", "head/bias"}
    assert lora(small(), trainable="bias", frozen="head") == body | {"body/bias"}
    assert lora(small(), lora_targets="body", last_layers=1) == body | {"head/kernel", "head/bias"}


def test_a_weight_behind_adapters_cannot_be_trained_itself():
    with pytest.raises(InvalidSettingError, match="'body/kernel' matches nothing"):
        lora(small(), trainable="body/kernel")


def test_adapters_of_different_layers_begin_differently_and_add_nothing_at_first():
    model = with_adapters(small(), 2, None, ["body", "head"], own=False)
    body, head = (np.array(model.get_layer(name).lora_kernel_a) for name in ("body", "head"))
    assert not np.array_equal(body[:3], head[:3])
    x = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    np.testing.assert_array_equal(model(x), small()(x))


@pytest.mark.parametrize(
    ("targets", "error", "message"),
    [
        ("norm", ModelError, r"'norm' names no layer that takes adapters, only BatchNormalization\..*`trainable`"),
        ("boddy", InvalidSettingError, r"`lora_targets` 'boddy' matches nothing\. Did you mean 'body'"),
        (["body", "gamma"], ModelError, "'gamma' names no layer that takes adapters"),
    ],
)
def test_a_pattern_without_a_layer_that_takes_adapters_is_refused(targets, error, message):
    with pytest.raises(error, match=message):
        lora(small(), lora_targets=targets)


def test_a_model_that_keras_cannot_copy_is_refused_and_not_changed():
    class Own(layers.Layer):
        def __init__(self, units):
            super().__init__()
            self.dense = layers.Dense(units)

        def call(self, x):
            return self.dense(x)

    model = keras.Sequential([keras.Input((4,)), Own(3)])
    model.compile("sgd", "mse")
    with pytest.raises(UnsupportedModelError, match=r"Keras cannot copy the model.*module:function"):
        lora(model)
    assert not model.layers[0].dense.lora_enabled


def test_what_is_frozen_in_the_file_is_no_parameter(converted):
    file = ModelFile.read(converted.path)
    assert {"dense/kernel", "normal/gamma", "normal/moving_mean"} <= set(file.manifest.frozen)


@pytest.mark.parametrize(("rank", "targets"), [(6, "*"), (4, "head"), (100, ("body", "*"))])
def test_a_rank_above_what_the_weights_can_have_is_refused_with_the_highest(rank, targets):
    with (
        pytest.raises(
            InvalidSettingError, match=rf"`lora_rank` {rank} is above .* can have, [34]: .*(body|head) \(\d x"
        ),
        fine_tuned(small(), FineTuning(lora_rank=rank, lora_targets=targets)),
    ):
        pass


def test_a_rank_that_some_weights_can_have_is_taken():
    with fine_tuned(small(), FineTuning(lora_rank=4)) as adapted:
        assert len(adapter_variables(adapted.model)) == 4
