"""Inference models in fewer bits run on both runtimes, near what Keras computes; bad calibration is refused."""

from __future__ import annotations

import sys
import textwrap

import keras
import numpy as np
import pytest
from keras import layers

import edgefl
import keras_models
from edgefl.errors import DataError, InvalidSettingError, ModelError, StorageError, VerificationError
from edgefl.model_file import ModelFile
from edgefl_converters.building.building import build
from edgefl_converters.exporting.inference_agreement import compare_with_keras
from edgefl_converters.exporting.tflite_files import tflite_bytes
from edgefl_converters.lint import lint_inference
from interpreters import EXPECTED


def wide(optimizer="sgd"):
    """With kernels large enough for TensorFlow to quantize them: of 1,024 values and more."""
    keras.utils.set_random_seed(1)
    stack = [
        keras.Input((8, 8, 2)),
        layers.Conv2D(32, 3, activation="relu"),
        layers.Conv2D(16, 3, activation="relu"),
        layers.Flatten(),
        layers.Dense(64, activation="relu"),
        layers.Dense(4, activation="softmax"),
    ]
    return keras_models.classifier(stack, optimizer)


def recurrent():
    keras.utils.set_random_seed(1)
    stack = [keras.Input((5, 3)), layers.LSTM(24), layers.Dense(4, activation="softmax")]
    return keras_models.classifier(stack)


def two_inputs():
    keras.utils.set_random_seed(1)
    b, a = keras.Input((6,), name="b"), keras.Input((3,), dtype="int32", name="a")
    x = layers.Concatenate()([layers.Dense(8)(b), layers.Flatten()(layers.Embedding(20, 4)(a))])
    model = keras.Model([b, a], [layers.Dense(4, activation="softmax", name="p")(x), layers.Dense(1, name="q")(x)])
    model.compile("sgd", ["sparse_categorical_crossentropy", "mse"])
    return model


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inference")
    for make in (wide, recurrent, two_inputs):
        (folder / f"{make.__name__}.tflite").write_bytes(build(make(), batch_size=4).data)
    return folder


def images(rows=64):
    return np.random.default_rng(2).normal(size=(rows, 8, 8, 2)).astype(np.float32)


def both(rows=40):
    generator = np.random.default_rng(3)
    return {"b": generator.normal(size=(rows, 6)), "a": generator.integers(0, 20, (rows, 3))}


@pytest.mark.parametrize(
    ("quantize", "share", "limit"),
    [("none", 1.0, 1e-5), ("float16", 0.55, 1e-3), ("dynamic", 0.35, 0.05), ("int8", 0.35, 0.05)],
)
def test_fewer_bits_make_a_smaller_file_that_both_runtimes_run_near_keras(files, tmp_path, quantize, share, limit):
    calibration = images() if quantize == "int8" else None
    result = edgefl.export(
        files / "wide.tflite", None, tmp_path / "out.tflite", quantize=quantize, calibration=calibration
    )

    plain = edgefl.export(files / "wide.tflite", None, tmp_path / "plain.tflite")
    assert result.report["bytes"] <= share * plain.report["bytes"]
    agreement = result.report["agreement"]
    assert {each["name"] for each in agreement["runtimes"]} == set(EXPECTED)
    for runtime in agreement["runtimes"]:
        assert runtime["ran"]
        [off] = runtime["outputs"].values()
        assert 0 <= off["mean"] <= off["largest"] <= limit
    assert (agreement["rows"], result.report["calibration_rows"]) == (
        (64, 64) if calibration is not None else (32, None)
    )
    assert lint_inference((tmp_path / "out.tflite").read_bytes()) == []


def test_the_same_calibration_gives_the_same_bytes(files, tmp_path):
    made = [
        edgefl.export(files / "wide.tflite", None, tmp_path / name, quantize="int8", calibration=images()).path
        for name in ("one.tflite", "two.tflite")
    ]
    assert made[0].read_bytes() == made[1].read_bytes()


@pytest.mark.parametrize("quantize", ["none", "int8"])
def test_recurrent_models_are_exported_too(files, tmp_path, quantize):
    rows = np.random.default_rng(0).normal(size=(16, 5, 3)) if quantize == "int8" else None
    result = edgefl.export(files / "recurrent.tflite", None, tmp_path / "o.tflite", quantize=quantize, calibration=rows)
    for runtime in result.report["agreement"]["runtimes"]:
        assert runtime["outputs"]["dense"]["largest"] < (1e-5 if quantize == "none" else 0.05)


def test_inputs_of_several_kinds_are_calibrated_by_name(files, tmp_path):
    np.savez(tmp_path / "rows.npz", **both())
    result = edgefl.export(
        files / "two_inputs.tflite", None, tmp_path / "o.tflite", quantize="int8", calibration=tmp_path / "rows.npz"
    )
    assert result.report["calibration_rows"] == 40
    assert set(result.report["agreement"]["runtimes"][0]["outputs"]) == {"p", "q"}


def test_a_device_s_data_will_do_for_calibration(files, tmp_path):
    np.savez(tmp_path / "device.npz", x=images(), y=np.zeros(64), sample_weight=np.ones(64))
    result = edgefl.export(
        files / "wide.tflite", None, tmp_path / "o.tflite", quantize="int8", calibration=tmp_path / "device.npz"
    )
    assert result.report["calibration_rows"] == 64


def test_a_function_may_return_the_rows(files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "own_rows", raising=False)
    source = """
        import numpy as np

        def rows():
            return np.ones((9, 8, 8, 2))

        def broken():
            return 1 / 0
    """
    (tmp_path / "own_rows.py").write_text(textwrap.dedent(source))
    given = {"quantize": "int8", "calibration": "own_rows:rows"}
    assert edgefl.export(files / "wide.tflite", None, "o.tflite", **given).report["calibration_rows"] == 9
    with pytest.raises(ModelError, match=r"broken\(\) failed: ZeroDivisionError"):
        edgefl.export(files / "wide.tflite", None, "o.tflite", **{**given, "calibration": "own_rows:broken"})


@pytest.mark.parametrize(
    ("name", "rows", "words"),
    [
        ("wide", np.zeros((4, 8, 8)), r"expects rows of shape \(8, 8, 2\), got an array of shape \(4, 8, 8\)"),
        ("wide", np.zeros((0, 8, 8, 2)), "holds no rows"),
        ("wide", np.full((2, 8, 8, 2), np.nan), "not finite"),
        ("wide", np.full((2, 8, 8, 2), "a"), "expects float32, got <U1"),
        ("wide", {"imagse": np.zeros((2, 8, 8, 2))}, r"missing: \['\w+'\], unknown: \['imagse'\]"),
        ("two_inputs", {**both(), "c": 1}, r"unknown: \['c'\]"),
        ("two_inputs", {"a": both()["a"], "bb": both()["b"]}, "Is 'bb' meant to be 'b'"),
        ("two_inputs", {**both(), "a": both()["b"][:, :3]}, "'a' expects int32, got float64"),
        ("two_inputs", {**both(), "a": both()["a"][:7]}, "as many rows of every input, got 40 of 'b', 7 of 'a'"),
        ("two_inputs", np.zeros((4, 6)), "rows of the 2 inputs b, a, got 1 array"),
    ],
)
def test_calibration_rows_that_do_not_fit_are_refused(files, tmp_path, name, rows, words):
    with pytest.raises(DataError, match=words):
        edgefl.export(files / f"{name}.tflite", None, tmp_path / "o.tflite", quantize="int8", calibration=rows)
    assert list(tmp_path.iterdir()) == []


def test_a_calibration_source_that_is_none_is_refused(files, tmp_path):
    def export(source):
        edgefl.export(files / "wide.tflite", None, tmp_path / "o.tflite", quantize="int8", calibration=source)

    with pytest.raises(InvalidSettingError, match="no calibration source"):
        export("rows.csv")
    with pytest.raises(StorageError, match="No such file"):
        export(tmp_path / "rows.npz")
    (tmp_path / "rows.npz").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"not a readable \.npz"):
        export(tmp_path / "rows.npz")
    with pytest.raises(ModelError, match="no_such_module"):
        export("no_such_module:rows")


@pytest.mark.parametrize(
    ("out", "options", "words"),
    [
        ("o.tflite", {"quantize": "int8"}, "int8 needs a calibration source"),
        ("o.tflite", {"quantize": "dynamic", "calibration": np.zeros(3)}, "is for `quantize='int8'`, got 'dynamic'"),
        ("o.tflite", {"calibration": np.zeros(3)}, "is for `quantize='int8'`, got 'none'"),
        ("o.tflite", {"quantize": "int4"}, "one of none, float16, dynamic, int8, got 'int4'"),
        ("o.keras", {"quantize": "float16"}, r"for inference models \(\.tflite\)"),
        ("o.npz", {"quantize": "float16"}, r"for inference models \(\.tflite\)"),
        ("o.onnx", {}, r"ends in \.keras, \.tflite, \.safetensors or \.npz, got 'o\.onnx'"),
    ],
)
def test_options_that_do_not_go_together_are_refused(files, tmp_path, out, options, words):
    with pytest.raises(InvalidSettingError, match=words):
        edgefl.export(files / "wide.tflite", None, tmp_path / out, **options)


def test_an_inference_model_of_another_function_is_noticed(files):
    model, other = wide(), wide()
    manifest = ModelFile.read(files / "wide.tflite").manifest
    other.layers[-1].bias.assign([3.0, 0.0, 0.0, 0.0])
    data = tflite_bytes(other, manifest, "none", None)
    with pytest.raises(VerificationError, match="does not compute what Keras computes"):
        compare_with_keras(data, model, manifest, {manifest.inputs[0]: images()}, "none")
