"""A model is converted for the runtimes that are to run it, and the file says so."""

from __future__ import annotations

import json
import subprocess
import sys

import keras
import pytest
from keras import layers, ops

from edgefl.inspecting.reports import report_path
from edgefl.model_file import ModelFile
from edgefl_converters import convert
from edgefl_converters.lint import UnfitTargetError
from edgefl_converters.verification import agreement as verifying
from edgefl_converters.verification.evidence import evidence
from edgefl_converters.verification.report import RuntimeReport
from interpreters import needs_tflite_runtime

OPEN = """
import sys
from edgefl.errors import RuntimeFailure
from edgefl_device_runtime.training import TrainableModel
try:
    print(TrainableModel(sys.argv[1], runtime=sys.argv[2]).runtime)
except RuntimeFailure as error:
    print(error)
"""


@keras.saving.register_keras_serializable("edgefl_tests")
class NeighbourMask(layers.Layer):
    """Pads a mask; PAD of bool values is of version 5, which came after TensorFlow Lite 2.14."""

    def call(self, x):
        padded = ops.pad(x > 0, [[0, 0], [1, 0]])
        return x * ops.cast(padded[:, :-1], "float32")


def model():
    keras.utils.set_random_seed(5)
    built = keras.Sequential([keras.Input((6,)), layers.Dense(8), NeighbourMask(name="mask"), layers.Dense(2)])
    built.compile(keras.optimizers.SGD(0.05), "mse")
    return built


@pytest.fixture(scope="module")
def litert_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("litert") / "m.tflite"
    return convert(model(), path, batch_size=4, target="litert-2")


def opened(path, runtime):
    done = subprocess.run([sys.executable, "-c", OPEN, path, runtime], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("target", ["all", "tflite-2.14"])
def test_a_model_that_only_a_newer_runtime_runs_is_refused_by_layer_op_and_version(tmp_path, target):
    with pytest.raises(UnfitTargetError) as refused:
        convert(model(), tmp_path / "m.tflite", batch_size=4, target=target)

    message = refused.value.message
    assert "PAD version 5, made by layer 'mask' (NeighbourMask); tflite-2.14 knows PAD up to version 4" in message
    assert "convert with `target='litert-2'`" in refused.value.hint
    assert not list(tmp_path.iterdir())


def test_it_is_accepted_for_that_runtime_and_verified_on_it_alone(litert_file):
    assert ModelFile.read(litert_file.path).manifest.target == "litert-2"
    assert [each["name"] for each in litert_file.report["verification"]["runtimes"]] == ["ai-edge-litert"]
    assert [each["target"] for each in litert_file.report["evidence"]] == ["litert-2"]
    assert litert_file.report["evidence"][0]["ran_on"].startswith("ai-edge-litert ")


def test_a_device_opens_a_file_on_the_runtimes_it_was_made_for(litert_file):
    assert opened(litert_file.path, "auto") == "ai-edge-litert"


@needs_tflite_runtime
def test_a_device_names_the_runtime_it_has_and_those_a_file_was_made_for(litert_file):
    refused = opened(litert_file.path, "tflite-runtime")
    assert "made for the target litert-2 (ai-edge-litert 2.3 or newer), here is tflite-runtime 2.14.0" in refused
    assert "Install ai-edge-litert, or convert the model again" in refused


def test_a_runtime_that_is_not_installed_is_said_to_be_checked_by_table_only(tmp_path, monkeypatch):
    only = [each for each in verifying.runtimes_for("all") if each.name == "ai-edge-litert"]
    monkeypatch.setattr(verifying, "runtimes_for", lambda target: only)
    small = keras.Sequential([keras.Input((3,)), layers.Dense(2)])
    small.compile("sgd", "mse")

    result = convert(small, tmp_path / "m.tflite", batch_size=4)

    old, new = json.loads(report_path(result.path).read_text())["evidence"]
    assert old["ran_on"] == ""
    assert old["table_only"].startswith("tflite-runtime 2.14 or newer is not installed")
    assert new["ran_on"] == f"ai-edge-litert {only[0].version}"


def test_what_was_not_run_is_said_so_with_the_reason():
    broken = RuntimeReport("tflite-runtime", "2.14.0", False, "It needs numpy < 2.", (), ())

    lines = [str(each) for each in evidence("all", [broken])]

    assert lines == [
        "tflite-2.14: It needs numpy < 2: checked against the op table only",
        "litert-2: ai-edge-litert 2.3 or newer is not installed: checked against the op table only",
    ]
    assert "nothing was run" in str(evidence("litert-2", None)[0])
