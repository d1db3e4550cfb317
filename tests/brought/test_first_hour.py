"""What somebody meets in the first hour: names, help, completion, silence, and results that fit on a screen."""

from __future__ import annotations

import os
import pydoc
import re
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgefl
from edgefl.cli import namesake
from edgefl.model_file import ModelFile
from edgefl_device_runtime.training import Gradient
from edgefl_device_runtime.training import History as TrainingHistory
from edgefl_simulation import load_data, partition_data
from model_files import make_model_file
from server_process import edgefl as command

SCREEN = 800
"""Characters: ten lines of a terminal."""


def python(program: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    known = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    return subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**known, **environment},
        timeout=300,
    )


def test_dir_shows_every_public_name_and_nothing_else() -> None:
    assert set(dir(edgefl)) == set(edgefl.__all__)


def test_help_describes_every_public_name_and_does_without_what_is_not_installed(tmp_path: Path) -> None:
    text = pydoc.plain(pydoc.render_doc(edgefl))
    assert [name for name in edgefl.__all__ if name not in text] == ["__version__"]
    assert "Converts a Keras model" in text
    assert "class Device" in text
    assert edgefl.__version__ in text
    program = "import sys, pydoc; sys.modules['urllib3'] = None; import edgefl; print(pydoc.render_doc(edgefl))"
    done = python(program, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "TrainableModel" in done.stdout


def test_a_type_checker_knows_every_public_name_and_no_other(tmp_path: Path) -> None:
    names = [name for name in edgefl.__all__ if not name.startswith("__")]
    (tmp_path / "program.py").write_text(
        "import edgefl\n\n" + "".join(f"reveal_type(edgefl.{name})\n" for name in names) + "edgefl.simulat\n"
    )
    mypy = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), "program.py"]
    done = subprocess.run(
        mypy, capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "MYPYPATH": checkout()}, timeout=600
    )
    revealed = re.findall(r"program\.py:(\d+): note: Revealed type is \"(.*)\"", done.stdout)
    assert len(revealed) == len(names)
    assert [names[int(line) - 3] for line, kind in revealed if kind == "Any"] == []
    assert re.findall(r"error: .*", done.stdout) == [
        'error: Module has no attribute "simulat"; maybe "simulate"?  [attr-defined]'
    ]


def checkout() -> str:
    """The folders of the five packages, as the type checker takes them."""
    import edgefl_converters
    import edgefl_device_runtime
    import edgefl_server
    import edgefl_simulation

    parts = (edgefl, edgefl_converters, edgefl_device_runtime, edgefl_server, edgefl_simulation)
    return os.pathsep.join(str(Path(str(part.__file__)).parents[1]) for part in parts)


@pytest.mark.parametrize(
    "words", [["convert"], ["run", "create"], ["simulate"], ["server", "start"], ["device", "run"]]
)
def test_no_group_of_options_in_a_long_help_is_long(words: list[str]) -> None:
    text = command(*words, "-h", COLUMNS="120", NO_COLOR="1").stdout
    panels = [re.findall(r"^│ (?:[* ] +)?(--[a-z-]+)", each, re.MULTILINE) for each in text.split("╭─")]
    assert max(map(len, panels)) <= 9
    assert sum(map(len, panels)) > 9


def complete(line: str, folder: Path, program: str = "") -> list[str]:
    """What bash offers at the end of a line."""
    words = line.split(" ")
    environment = {
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
        "_EDGEFL_COMPLETE": "complete_bash",
    }
    done = python(f"{program}\nfrom edgefl.cli.main import main\nmain([])", folder, **environment)
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("edgefl ser", ["server"]),
        ("edgefl run wa", ["watch"]),
        ("edgefl run watch --sta", ["--state"]),
        ("edgefl convert --last", ["--last-layers"]),
        ("edgefl simulate --eng", ["--engine"]),
    ],
)
def test_a_shell_completes_verbs_and_options_at_every_level(line: str, offered: list[str], tmp_path: Path) -> None:
    assert complete(line, tmp_path) == offered


def test_completing_a_verb_that_lacks_its_packages_offers_nothing_and_prints_no_error(tmp_path: Path) -> None:
    assert complete("edgefl device r", tmp_path, "import sys; sys.modules['urllib3'] = None") == []


def test_completion_is_installed_for_the_whole_command(tmp_path: Path) -> None:
    done = python(
        "from edgefl.cli.main import main\nmain(['--install-completion', 'bash'])",
        tmp_path,
        HOME=str(tmp_path),
        _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1",
    )
    assert done.returncode == 0, done.stderr
    script = (tmp_path / ".bash_completions" / "edgefl.sh").read_text()
    assert "complete -o default -F _edgefl_completion edgefl" in script
    assert "_EDGEFL_COMPLETE" in script
    assert str(tmp_path / ".bash_completions" / "edgefl.sh") in (tmp_path / ".bashrc").read_text()


def test_the_version_warns_of_the_other_project_of_this_name_only_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = command("--version")
    assert (done.stdout[:7], done.stderr) == ("edgefl ", "")
    other = tmp_path / "edgefl-9.9.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: edgefl\nVersion: 9.9\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert metadata.version("edgefl") == "9.9"
    assert "edgefl 9.9" in namesake.namesake_warning()
    done = command("--version")
    assert (done.stdout[:7], done.stdout.count("\n")) == ("edgefl ", 1)
    assert "pip uninstall edgefl edgefl-toolkit" in done.stderr


CONVERT = """
import edgefl
result = edgefl.convert("model.keras", "model.tflite", batch_size=8)
verified = edgefl.verify("model.tflite", "model.keras")
exported = edgefl.export("model.tflite", None, "out.tflite")
for each in (result, result.manifest, result.manifest.signatures["train"], verified, exported):
    print(len(repr(each)))
assert "model.tflite" in repr(result) and "passed" in repr(verified)
"""


def test_converting_says_one_sentence_and_results_fit_on_a_screen(tmp_path: Path) -> None:
    """In a process of its own: TensorFlow's noise is of its libraries, past Python."""
    made = python(
        "import keras; m = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, 'softmax')]);"
        "m.compile('sgd', 'sparse_categorical_crossentropy', metrics=['accuracy']); m.save('model.keras')",
        tmp_path,
    )
    assert made.returncode == 0
    assert len(made.stderr.splitlines()) > 1, "TensorFlow is silent by itself"
    done = python(CONVERT, tmp_path)
    assert done.returncode == 0, done.stderr
    (sentence,) = done.stderr.splitlines()
    assert re.fullmatch(r"model\.tflite \([\d,]+ bytes\) trains 15 weights in batches of 8, and agrees .+\.", sentence)
    assert all(int(length) <= 4 * SCREEN for length in done.stdout.split())


RESULTS = {
    "data": lambda: load_data("digits"),
    "partition": lambda: partition_data("digits", partition="iid", devices=300),
    "manifest": lambda: ModelFile(make_model_file()).manifest,
    "gradient": lambda: Gradient(np.zeros(9000, np.float32), {"loss": 1.0}, {"loss_sum": np.zeros(1000)}, 3),
    "history": lambda: TrainingHistory({"loss": [1.0] * 500}, list(range(500)), 500, 3),
}


@pytest.mark.parametrize("made", RESULTS.values(), ids=RESULTS)
def test_a_result_is_shown_on_a_screen(made: Callable[[], Any]) -> None:
    shown = repr(made())
    assert 20 < len(shown) <= SCREEN
    assert "object at 0x" not in shown
