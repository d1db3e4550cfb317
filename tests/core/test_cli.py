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


def test_a_missing_package_is_answered_with_the_line_that_installs_it(tmp_path: Path) -> None:
    # A module that fails to import as an absent one does, ahead of the real one on the path.
    for name in ("tensorflow", "fastapi", "urllib3"):
        (tmp_path / f"{name}.py").write_text(f"raise ModuleNotFoundError('No module named {name}', name={name!r})")
    (tmp_path / "model.keras").write_bytes(b"")
    for verb, extra in (("convert", "convert"), ("server", "server"), ("device", "device")):
        arguments = {
            "convert": ["model.keras", "-o", "model.tflite"],
            "server": ["start", "--state", "state"],
            "device": ["run", "--help"],
        }[verb]
        program = f"import sys; sys.path.insert(0, '.'); from edgefl.cli.main import main; main({[verb, *arguments]})"
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, timeout=60)
        assert done.returncode == 3, done.stderr
        assert f'"edgefl-toolkit[{extra}]"' in done.stderr
        assert "-m pip install" in done.stderr
