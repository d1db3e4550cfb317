"""``edgefl convert``, ``verify`` and ``export`` as processes, with code of the user's own."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap

import pytest

MODULE = """
    import keras

    def model():
        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, activation="relu"), keras.layers.Dense(2)])
        return model
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    (folder / "my_models.py").write_text(textwrap.dedent(MODULE))
    return folder


def edgefl(folder, *arguments):
    command = [sys.executable, "-m", "edgefl.cli.main", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_a_model_is_converted_verified_and_exported(folder):
    given = ["--loss", "mse", "--optimizer", "adam", "--metric", "mae", "--batch-size", "4"]

    done = edgefl(folder, "convert", "my_models:model", "-o", "model.tflite", *given, "--format", "json")

    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["path"] == "model.tflite"
    assert document["verification"]["passed"]
    assert {each["name"] for each in document["verification"]["runtimes"]} == {"ai-edge-litert", "tflite-runtime"}
    # Two lines of progress, and nothing of what TensorFlow has to say.
    assert len(done.stderr.splitlines()) == 2, done.stderr

    done = edgefl(folder, "export", "model.tflite", "-o", "model.keras", "--format", "json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"path": "model.keras", "bytes": (folder / "model.keras").stat().st_size}
    assert done.stderr == ""

    done = edgefl(folder, "verify", "model.tflite", "--against", "model.keras")
    assert done.returncode == 0, done.stderr
    assert "model.tflite agrees with model.keras" in done.stdout
    assert "ai-edge-litert" in done.stdout
    assert "tflite-runtime" in done.stdout


OWN = """
    import keras

    class Double(keras.layers.Layer):
        def call(self, x):
            return 2 * x

    def model():
        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.Input((3,)), Double(), keras.layers.Dense(2)])
        model.compile("sgd", "mse")
        return model

    def rows():
        return keras.random.normal((7, 3), seed=1).numpy()
"""


def test_the_code_of_a_module_is_run_only_if_asked_and_said_so(folder):
    (folder / "own_layers.py").write_text(textwrap.dedent(OWN))
    save = "import own_layers; own_layers.model().save('own.keras')"
    subprocess.run([sys.executable, "-c", save], cwd=folder, check=True, capture_output=True)

    done = edgefl(folder, "convert", "own.keras", "-o", "own.tflite", "--no-verify")
    assert done.returncode == 10
    assert "uses Double, which Keras does not know. Name the module that defines it" in done.stderr

    known = ["--custom-objects", "own_layers"]
    done = edgefl(folder, "convert", "own.keras", "-o", "own.tflite", "--no-verify", *known)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[0] == "running the code of module own_layers"

    made = ["--quantize", "int8", "--calibration", "own_layers:rows"]
    done = edgefl(folder, "export", "own.tflite", "-o", "small.tflite", *known, *made)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines() == ["running the code of module own_layers"] * 2
    lines = done.stdout.splitlines()
    assert lines[0].startswith("wrote small.tflite: ")
    assert lines[1] == "  int8 weights and activations, float32 inputs and outputs; calibrated on 7 rows"
    assert [line.split()[0] for line in lines[2:]] == ["ai-edge-litert", "tflite-runtime"]
    assert all("from Keras's" in line and "on 7 of those rows" in line for line in lines[2:])


def test_an_export_that_cannot_be_gives_one_line_and_no_file(folder):
    done = edgefl(folder, "export", "own.tflite", "-o", "bad.tflite", "--quantize", "int8")
    assert done.returncode == 4
    assert "int8 needs a calibration source" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not list(folder.glob("*bad*"))


def test_a_file_that_is_no_model_gives_one_line_its_exit_code_and_no_file(folder):
    (folder / "notes.txt").write_text("not a model")

    done = edgefl(folder, "convert", "notes.txt", "-o", "bad.tflite")

    assert done.returncode == 10
    assert done.stdout == ""
    assert done.stderr.startswith("edgefl: notes.txt is not a Keras model file.")
    assert len(done.stderr.splitlines()) == 1
    assert not list(folder.glob("*bad*"))


WITHOUT_TENSORFLOW = """
import sys
sys.modules["tensorflow"] = None
from edgefl.cli.main import main
main(sys.argv[1:])
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ("convert", "model.keras", "-o", "m.tflite"),
        ("verify", "m.tflite", "--against", "m.keras"),
        ("export", "m.tflite", "-o", "m.keras"),
    ],
)
def test_without_tensorflow_each_verb_answers_with_the_line_that_installs_it(folder, arguments):
    command = [sys.executable, "-c", WITHOUT_TENSORFLOW, *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr
    assert "pip install" in done.stderr
    assert "edgefl-toolkit[convert]" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_help_needs_no_tensorflow(folder):
    command = [sys.executable, "-c", WITHOUT_TENSORFLOW, "convert", "--help"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "--batch-size" in done.stdout
