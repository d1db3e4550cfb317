"""The command line as a user meets it: a process, its output and its exit code."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from edgefl.parts import VERBS


def edgefl(*arguments: str, cwd: Path | None = None) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "edgefl.cli.main", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=60)


def test_help_lists_every_verb_without_importing_its_part() -> None:
    program = """
import sys
from edgefl.cli.main import main
try:
    main(["--help"])
finally:
    print(sorted(name for name in sys.modules if name.startswith(("edgefl_", "tensorflow", "fastapi"))))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert all(verb in done.stdout for verb in VERBS)
    assert done.stdout.rstrip().endswith("[]")


def test_an_unknown_verb_is_a_misuse() -> None:
    done = edgefl("bogus")
    assert done.returncode == 2
    assert "bogus" in done.stderr


def test_the_version_is_printed() -> None:
    assert edgefl("--version").stdout.startswith("edgefl 0.")


def test_a_file_that_is_no_model_is_one_line_with_a_documented_code(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not a model")
    done = edgefl("inspect", "notes.txt", cwd=tmp_path)
    assert done.returncode == 20
    assert done.stderr.count("\n") == 1
    assert "notes.txt is not a TFLite file: expected the identifier 'TFL3'" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("option", [["--format", "json"], ["--format=json"]])
def test_with_json_an_error_is_json_too(tmp_path: Path, option: list[str]) -> None:
    done = edgefl("inspect", *option, "missing.tflite", cwd=tmp_path)
    assert done.returncode == 52
    document = json.loads(done.stderr)
    assert document["error"] == "StorageError"
    assert document["exit_code"] == 52


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (["convert", "model.keras", "-o", "model.tflite"], "convert"),
        (["verify", "model.tflite", "--against", "model.keras"], "convert"),
        (["export", "model.tflite", "-o", "model.keras"], "convert"),
        (["server", "start", "--state", "state"], "server"),
        (["run", "list", "--state", "state"], "server"),
        (["device", "run", "--server", "http://127.0.0.1:1", "--population", "p", "--token", "t",
          "--data", "d.npz", "--state", "state"], "device"),
    ],
)  # fmt: skip
def test_a_missing_package_is_answered_with_the_line_that_installs_it(
    tmp_path: Path, arguments: list[str], extra: str
) -> None:
    # None in sys.modules is how Python marks a module as not importable.
    program = f"""
import sys
sys.modules.update(dict.fromkeys(["tensorflow", "fastapi", "urllib3"]))
from edgefl.cli.main import main
main({arguments})
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert done.returncode == 3, done.stderr
    assert f'-m pip install --find-links "${{EDGEFL_WHEELS:-dist}}" "edgefl-toolkit[{extra}]"' in done.stderr
    assert list(tmp_path.iterdir()) == []
