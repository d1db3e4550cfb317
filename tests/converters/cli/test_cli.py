"""``edgefl convert``, ``verify`` and ``export`` as processes, with code of the user's own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap

import pytest

import edgefl_converters
from edgefl.cli.main import main
from edgefl.errors import EdgeflError
from edgefl_converters import FineTuning
from edgefl_converters.cli.verbs import _storage
from interpreters import EXPECTED

MODULE = """
    import keras

    def model():
        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, activation="relu"), keras.layers.Dense(2)])
        return model

    def channels_first():
        layers = [keras.layers.Conv2D(2, 2, data_format="channels_first"), keras.layers.Flatten()]
        model = keras.Sequential([keras.Input((3, 4, 4)), *layers])
        model.compile("sgd", "mse")
        return model
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    (folder / "my_models.py").write_text(textwrap.dedent(MODULE))
    return folder


def edgefl(folder, *arguments):
    command = [sys.executable, "-m", "edgefl.cli.main", *arguments]
    # TensorFlow's own messages are kept back unless somebody asks for them, as commands within this process do.
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def here(folder, monkeypatch, capsys, *arguments):
    """The same in this process, where another would tell no more: TensorFlow takes seconds to start."""
    monkeypatch.chdir(folder)
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    printed = capsys.readouterr()
    return subprocess.CompletedProcess(arguments, ended.value.code, printed.out, printed.err)


def test_channels_that_keras_cannot_compute_without_one_dnn_are_refused_with_what_to_do(folder):
    done = edgefl(folder, "convert", "my_models:channels_first", "-o", "first.tflite", "--batch-size", "2")
    assert done.returncode == 11, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("edgefl: Keras cannot compute layers with data_format='channels_first'")
    assert last.endswith("Set TF_ENABLE_ONEDNN_OPTS=1 in the environment, or verify nothing (--no-verify).")


def test_a_model_is_converted_verified_and_exported(folder, monkeypatch, capsys):
    given = ["--loss", "mse", "--optimizer", "adam", "--metric", "mae", "--batch-size", "4"]

    done = edgefl(folder, "convert", "my_models:model", "-o", "model.tflite", *given, "--format", "json")

    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["path"] == "model.tflite"
    assert document["verification"]["passed"]
    assert {each["name"] for each in document["verification"]["runtimes"]} == set(EXPECTED)
    # Two lines of progress, and nothing of what TensorFlow has to say.
    assert len(done.stderr.splitlines()) == 2, done.stderr

    done = edgefl(folder, "export", "model.tflite", "-o", "model.keras", "--format", "json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"path": "model.keras", "bytes": (folder / "model.keras").stat().st_size}
    assert done.stderr == ""

    done = here(folder, monkeypatch, capsys, "verify", "model.tflite", "--against", "model.keras")
    assert done.returncode == 0, done.stderr
    assert "model.tflite agrees with model.keras" in done.stdout
    assert all(name in done.stdout for name in EXPECTED)


def given(monkeypatch, *arguments):
    """What `edgefl convert` with some arguments calls `edgefl_converters.convert` with."""
    calls = []

    def convert(model, out, **options):
        calls.append(options)
        raise EdgeflError("enough")

    monkeypatch.setattr(edgefl_converters, "convert", convert)
    with pytest.raises(SystemExit):
        main(["convert", "model.keras", "-o", "model.tflite", *arguments])
    return calls[0]


def test_every_choice_of_what_is_trained_reaches_the_api(monkeypatch):
    options = "--trainable a* --trainable B --frozen c --last-layers 3 --lora-rank 4 --lora-target d --lora-target e"
    found = given(monkeypatch, *options.split(), "--lora-alpha", "8")
    assert found["fine_tuning"] == FineTuning(["a*", "B"], ["c"], 3, False, 4, ["d", "e"], 8.0)
    assert given(monkeypatch, "--biases-only")["fine_tuning"] == FineTuning(biases_only=True)


def test_what_else_a_file_is_made_for_reaches_the_api(monkeypatch):
    options = "--local head --local BatchNormalization --algorithm fedprox --algorithm fedsgd --quantize-frozen int8"
    found = given(monkeypatch, *options.split(), "--target", "litert-2", "--no-verify", "--micro-batch", "8")
    assert found["local"] == ["head", "BatchNormalization"]
    assert found["algorithms"] == ["fedprox", "fedsgd"]
    assert (found["quantize_frozen"], found["target"], found["verify"]) == ("int8", "litert-2", False)
    assert found["micro_batch"] == 8


def test_without_options_the_model_is_trained_as_it_is(monkeypatch):
    found = given(monkeypatch)
    assert found["fine_tuning"].is_default
    assert (found["local"], found["algorithms"], found["quantize_frozen"]) == ((), (), None)


WIDE = """
    import keras

    def model():
        keras.utils.set_random_seed(1)
        stack = [keras.Input((40,)), keras.layers.Dense(40, activation="relu", name="body")]
        stack += [keras.layers.BatchNormalization(name="norm"), keras.layers.Dense(2, name="head")]
        model = keras.Sequential(stack)
        model.compile("sgd", "mse")
        return model
"""


@pytest.mark.slow
def test_a_model_is_fine_tuned_with_its_base_in_fewer_bytes(folder, monkeypatch):
    (folder / "wide.py").write_text(textwrap.dedent(WIDE))
    options = "--lora-rank 2 --lora-target head --trainable head/bias --quantize-frozen int8 --algorithm fedprox"
    arguments = ["convert", "wide:model", "-o", "wide.tflite", "--batch-size", "4", *options.split()]

    done = edgefl(folder, *arguments, "--format", "json")

    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["quantize_frozen"]["storage"] == "int8"
    assert document["quantize_frozen"]["float32_bytes"] > document["bytes"]
    assert {each["runtime"].split()[0] for each in document["quantize_frozen"]["runtimes"]} == set(EXPECTED)
    done = edgefl(folder, "inspect", "wide.tflite", "--no-measure", "--format", "json")
    names = [each["name"] for each in json.loads(done.stdout)["parameters"]]
    assert sorted(names) == ["head/bias", "head/lora_kernel_a", "head/lora_kernel_b"]
    monkeypatch.chdir(folder)
    again = edgefl_converters.convert(
        "wide:model",
        "again.tflite",
        batch_size=4,
        fine_tuning=FineTuning(lora_rank=2, lora_targets="head", trainable="head/bias"),
        algorithms="fedprox",
        quantize_frozen="int8",
        verify=False,
    )
    assert again.path.read_bytes() == (folder / "wide.tflite").read_bytes(), "another process drew other adapters"
    text = _storage(document["quantize_frozen"])
    assert text[0].startswith("  frozen weights stored as int8: ")
    assert all("outputs change by" in line for line in text[1:])
    assert len(text) == 1 + len(EXPECTED)


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        ("--trainable haed", 4, "--trainable 'haed' matches nothing. Did you mean 'head'"),
        ("--frozen *", 4, "Everything is frozen"),
        ("--last-layers 9", 4, "--last-layers is 9, but the model has 3 layers with weights"),
        ("--lora-alpha 4", 4, "--lora-rank is missing. Give the rank of the adapters, for example --lora-rank 4"),
        ("--lora-rank 2 --lora-target norm", 10, "names no layer that takes adapters, only BatchNormalization"),
        ("--quantize-frozen int8", 4, "Nothing is frozen"),
        ("--quantize-frozen int4", 4, "can be stored as float16, int8 or int8-dynamic, got 'int4'"),
        ("--local *", 4, "Every trained weight would stay on the device"),
        ("--algorithm fedavgm", 4, "There is no algorithm 'fedavgm'"),
        ("--algorithm scaffold --optimizer adam", 4, "SCAFFOLD expects plain SGD"),
    ],
)
def test_a_choice_that_cannot_be_gives_one_line_its_exit_code_and_no_file(
    folder, monkeypatch, capsys, options, code, message
):
    (folder / "wide.py").write_text(textwrap.dedent(WIDE))
    done = here(folder, monkeypatch, capsys, "convert", "wide:model", "-o", "bad.tflite", *options.split())
    assert done.returncode == code
    assert message in done.stderr
    assert done.stdout == ""
    assert not list(folder.glob("*bad*"))


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


@pytest.fixture(scope="module")
def own(folder):
    """The name of a saved model with a class of the module own_layers, which is not loaded here."""
    (folder / "own_layers.py").write_text(textwrap.dedent(OWN))
    module = {"__name__": "own_layers"}
    exec(textwrap.dedent(OWN), module)
    module["model"]().save(folder / "own.keras")
    return "own.keras"


def test_the_code_of_a_module_is_run_only_if_asked_and_said_so(folder, own, monkeypatch, capsys):
    done = here(folder, monkeypatch, capsys, "convert", own, "-o", "own.tflite", "--no-verify")
    assert done.returncode == 10
    assert "uses Double, which Keras does not know. Name the module that defines it" in done.stderr
    assert "own_layers" not in sys.modules

    known = ["--custom-objects", "own_layers"]
    done = here(folder, monkeypatch, capsys, "convert", own, "-o", "own.tflite", "--no-verify", *known)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[0] == "running the code of module own_layers"

    made = ["--quantize", "int8", "--calibration", "own_layers:rows"]
    done = edgefl(folder, "export", "own.tflite", "-o", "small.tflite", *known, *made)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines() == ["running the code of module own_layers"] * 2
    lines = done.stdout.splitlines()
    assert lines[0].startswith("wrote small.tflite: ")
    assert lines[1] == "  int8 weights and activations, float32 inputs and outputs; calibrated on 7 rows"
    assert [line.split()[0] for line in lines[2:]] == list(EXPECTED)
    assert all("from Keras's" in line and "on 7 of those rows" in line for line in lines[2:])


def test_an_export_that_cannot_be_gives_one_line_and_no_file(folder, own, monkeypatch, capsys):
    here(folder, monkeypatch, capsys, "convert", "own_layers:model", "-o", "own.tflite", "--no-verify")
    done = here(folder, monkeypatch, capsys, "export", "own.tflite", "-o", "bad.tflite", "--quantize", "int8")
    assert done.returncode == 4
    assert "int8 needs a calibration source" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not list(folder.glob("*bad*"))


def test_a_file_that_is_no_model_gives_one_line_its_exit_code_and_no_file(folder, monkeypatch, capsys):
    (folder / "notes.txt").write_text("not a model")

    done = here(folder, monkeypatch, capsys, "convert", "notes.txt", "-o", "bad.tflite")

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
