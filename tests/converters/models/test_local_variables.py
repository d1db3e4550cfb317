"""Parameters that never leave a device: chosen by patterns, trained, and in the file but not in what travels."""

from __future__ import annotations

import keras
import pytest
from keras import layers

import edgefl
from edgefl.errors import InvalidSettingError, VerificationError
from edgefl.model_file import ModelFile
from edgefl_converters import FineTuning
from edgefl_converters.building.building import build
from edgefl_converters.models.local_variables import local_variables
from edgefl_converters.models.named_model import NamedModel
from edgefl_converters.settings.options import options_of
from edgefl_converters.training_step.selection import fine_tuned
from keras_models import nested_head

NORM = [f"norm/{name}" for name in ("gamma", "beta", "moving_mean", "moving_variance")]


def local(model, *patterns):
    named = NamedModel.of(model)
    chosen = local_variables(named, patterns)
    return sorted(name for name, variable in named.variables.items() if id(variable) in chosen)


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        ([], []),
        (["/head"], ["head/bias", "head/kernel"]),
        (["BatchNormalization"], sorted(NORM)),
        (["norm/moving_*"], ["norm/moving_mean", "norm/moving_variance"]),
        (["gamma", "head/bias"], ["block/head/bias", "head/bias", "norm/gamma"]),
    ],
)
def test_patterns_choose_weights_and_statistics(patterns, expected):
    assert local(nested_head(), *patterns) == expected


@pytest.mark.parametrize(
    ("tuning", "pattern", "message"),
    [
        (FineTuning(), "*", r"Every trained weight would stay on the device.*Keep fewer layers with `local`"),
        (FineTuning(trainable="/head"), "head", "Every trained weight would stay"),
        (FineTuning(), "haed", r"`local` 'haed' matches nothing\. Did you mean 'head'"),
        (FineTuning(trainable="/head"), "norm", "'norm' matches nothing"),  # frozen: neither trained nor moving
        (FineTuning(biases_only=True), "kernel", "'kernel' matches nothing"),
        (FineTuning(biases_only=True), "gamma", "'gamma' matches nothing"),
        (FineTuning(lora_rank=2), "head/kernel", "'head/kernel' matches nothing"),
    ],
)
def test_what_would_leave_nothing_to_share_or_is_not_trained_is_refused(tuning, pattern, message):
    with fine_tuned(nested_head(), tuning, own=True) as model, pytest.raises(InvalidSettingError, match=message):
        local(model, pattern)


@pytest.fixture(scope="module")
def personal(tmp_path_factory):
    path = tmp_path_factory.mktemp("local") / "personal.tflite"
    return edgefl.convert(nested_head(), path, batch_size=4, local=["/head", "norm"], algorithms="feddyn")


def test_local_parameters_are_trained_but_not_in_the_layout(personal):
    manifest = personal.manifest
    assert list(manifest.layout.names) == ["block/head/kernel", "block/head/bias"]
    assert [each.name for each in manifest.local_parameters] == [*NORM, "head/kernel", "head/bias"]
    assert personal.report["verification"]["passed"]
    plain = ModelFile(build(nested_head(), batch_size=4).data).manifest
    assert {each.name for each in plain.parameters} == {each.name for each in manifest.parameters}
    assert plain.layout_hash != manifest.layout_hash
    # What an algorithm does to shared weights it does not do to these.
    assert [spec.name for spec in manifest.signatures["set_correction"].inputs] == list(manifest.layout.names)


def test_the_options_of_a_file_choose_the_same_parameters_again(personal):
    options = options_of(personal.manifest)
    assert local(nested_head(), *options.local) == sorted([*NORM, "head/kernel", "head/bias"])
    assert build(nested_head(), batch_size=4, options=options).data == personal.path.read_bytes()


def test_a_file_with_local_parameters_is_verified_against_its_model_and_no_other(personal):
    assert all(each.passed for each in edgefl.verify(personal.path, nested_head()).runtimes)
    stack = [keras.Input((6,)), layers.Dense(6, name="other"), layers.Dense(3, name="head")]
    other = keras.Sequential(stack)
    other.compile("sgd", "mse")
    with pytest.raises(VerificationError, match="was not made from this model"):
        edgefl.verify(personal.path, other)
