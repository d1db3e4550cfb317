"""Frozen weights in fewer bytes, from the conversion to the report, and what is refused."""

from __future__ import annotations

import json

import keras
import pytest
from keras import layers

import edgefl
import keras_models
from edgefl.errors import InvalidSettingError, VerificationError
from edgefl.inspecting.reports import report_path
from edgefl_converters import FineTuning
from edgefl_converters.flatbuffer import frozen_storage
from edgefl_converters.flatbuffer.passes import frozen_constants
from edgefl_converters.settings.options import Options
from edgefl_converters.training_step.specification import specify
from edgefl_converters.verification import storage_cost as module
from edgefl_converters.verification.storage_cost import storage_cost
from interpreters import EXPECTED

HEAD = FineTuning(trainable="head")


def network():
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((10,)),
            layers.Dense(64, activation="tanh", name="first"),
            layers.Dense(48, activation="tanh", name="second"),
            layers.Dense(3, name="head"),
        ]
    )
    model.compile("sgd", "mse")
    return model


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("storage") / "model.keras"
    network().save(path)
    return path


@pytest.fixture(scope="module", params=["int8", "float16", "int8-dynamic"])
def converted(saved, request):
    out = saved.with_name(f"{request.param}.tflite")
    target = "litert-2" if request.param == "int8-dynamic" else "all"
    return edgefl.convert(str(saved), out, batch_size=8, fine_tuning=HEAD, quantize_frozen=request.param, target=target)


def test_the_report_says_what_it_saves_and_what_it_costs_on_each_runtime(converted):
    storage = converted.path.stem
    told = json.loads(report_path(converted.path).read_text())["quantize_frozen"]
    assert told == converted.report["quantize_frozen"]
    assert told["storage"] == storage == converted.manifest.fine_tuning["quantize_frozen"]
    saved_bytes = told["float32_bytes"] - converted.path.stat().st_size
    per_value, per_scale = {"float16": (2, 0)}.get(storage, (3, 12))
    # Scales lie in the file once, though three signatures know the weights.
    assert per_value * 64 * 48 - 64 * per_scale - 1000 < saved_bytes < per_value * 64 * 48
    expected = EXPECTED[:1] if storage == "int8-dynamic" else EXPECTED
    assert [each["runtime"].split()[0] for each in told["runtimes"]] == list(expected)
    for each in told["runtimes"]:
        assert 0 < each["output_error"] < {"float16": 1e-3}.get(storage, 0.02)
        assert 0 < each["step_error"] <= each["worst_step_error"] < {"float16": 1e-3}.get(storage, 0.02)
        assert each["worst_weight"] in ("head/kernel", "head/bias")
        assert each["stored_loss"] == pytest.approx(each["loss"], rel=0.02)
    assert converted.report["verification"]["passed"]


def test_such_a_file_is_verified_against_the_model_by_its_float32_twin(saved, converted):
    model = str(saved) if converted.path.stem == "float16" else network()
    assert all(each.passed for each in edgefl.verify(converted.path, model).runtimes)


def test_another_model_with_the_same_head_is_told_by_its_frozen_weights(converted):
    other = network()
    other.get_layer("second").kernel.assign(other.get_layer("second").kernel * 1.001)
    with pytest.raises(VerificationError, match="was not made from this model: its frozen weights are others"):
        edgefl.verify(converted.path, other)


def test_it_is_exported_with_the_frozen_weights_of_the_base(saved, converted, tmp_path):
    edgefl.export(converted.path, None, tmp_path / "again.keras", base=str(saved))
    again = keras.saving.load_model(tmp_path / "again.keras")
    for variable, original in zip(again.variables, network().variables, strict=True):
        assert (variable.numpy() == original.numpy()).all()


def test_a_wrong_scale_is_noticed_and_nothing_is_written(saved, tmp_path, monkeypatch):
    def store(constant, storage):
        stored = frozen_storage.store(constant, storage)
        if stored is None:
            return None
        return frozen_storage.StoredConstant(stored.values, 3 * stored.scales, stored.axis)

    monkeypatch.setattr(frozen_constants, "store", store)
    out = tmp_path / "model.tflite"
    with pytest.raises(VerificationError, match=r"computes something else: .* outputs change by .*float16"):
        edgefl.convert(str(saved), out, batch_size=8, fine_tuning=HEAD, quantize_frozen="int8")
    assert not list(tmp_path.iterdir())


def test_a_step_that_has_little_to_do_with_that_of_float32_is_refused(saved, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_MOST_OF_GRADIENT", 1e-4)
    out = tmp_path / "model.tflite"
    settings = {"fine_tuning": HEAD, "quantize_frozen": "int8-dynamic", "target": "litert-2"}
    with pytest.raises(VerificationError, match=r"what a step changes by .* % of head/.*`quantize_frozen='int8'`"):
        edgefl.convert(str(saved), out, batch_size=8, **settings)
    assert not list(tmp_path.iterdir())


def test_outputs_that_are_no_numbers_are_refused(converted, monkeypatch):
    monkeypatch.setattr(module, "_outputs", lambda manifest, answers: module.np.full(3, module.np.nan))
    options = Options(quantize_frozen="int8")
    data = converted.path.read_bytes()
    with pytest.raises(VerificationError, match="something else"):
        storage_cost(specify(network(), batch_size=8, options=options), converted.manifest, data, data)


@pytest.mark.parametrize(
    ("tuning", "message"),
    [
        (None, r"Nothing is frozen, so that nothing can be stored as int8: what is trained stays float32.*`trainable`"),
        (FineTuning(frozen="first"), r"too small to be stored as int8: .* at least 1,024 values"),
    ],
)
def test_without_a_frozen_weight_of_any_size_it_is_refused(saved, tmp_path, tuning, message):
    with pytest.raises(InvalidSettingError, match=message):
        edgefl.convert(str(saved), tmp_path / "m.tflite", fine_tuning=tuning, quantize_frozen="int8", verify=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("storage", ["int4", "float32", ""])
def test_a_format_that_does_not_exist_is_refused_with_those_that_do(tmp_path, storage):
    with pytest.raises(InvalidSettingError, match=f"can be stored as float16, int8 or int8-dynamic, got {storage!r}"):
        edgefl.convert(keras_models.mlp(), tmp_path / "model.tflite", quantize_frozen=storage)
