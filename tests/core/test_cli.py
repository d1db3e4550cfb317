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


DEVICE_ONLY = ["tensorflow", "keras", "h5py", "safetensors", "fastapi", "starlette", "uvicorn", "sqlalchemy", "alembic"]
SERVER_ONLY = ["tensorflow", "keras", "h5py", "safetensors", "tflite_runtime", "ai_edge_litert", "psutil"]
NOTHING = [*DEVICE_ONLY, *SERVER_ONLY, "urllib3"]
COMMANDS = {
    "convert": ["convert", "model.keras", "-o", "model.tflite"],
    "verify": ["verify", "model.tflite", "--against", "model.keras"],
    "export": ["export", "model.tflite", "-o", "model.keras"],
    "inspect": ["inspect", "model.tflite"],
    "server start": ["server", "start", "--state", "state"],
    "server invite": ["server", "invite", "--state", "state", "--population", "p"],
    "run create": ["run", "create", "m.tflite", "--state", "s", "--population", "p", "--rounds", "1", "--target", "1"],
    "run list": ["run", "list", "--state", "state"],
    "run status": ["run", "status", "r", "--state", "state"],
    "run watch": ["run", "watch", "r", "--state", "state"],
    "run stop": ["run", "stop", "r", "--state", "state"],
    "run weights": ["run", "weights", "r", "--state", "state", "-o", "weights.npy"],
    "device run": ["device", "run", "--data", "d.npz", "--state", "state"],
    "device status": ["device", "status", "--state", "state"],
}
NEED = {
    "device": {"convert", "verify", "export", "server start"},
    "server": {"convert", "verify", "export"},
    "nothing": {*COMMANDS} - {"inspect"},
}


@pytest.mark.parametrize(
    ("install", "missing", "command"),
    [
        (install, missing, command)
        for install, missing in [("device", DEVICE_ONLY), ("server", SERVER_ONLY), ("nothing", NOTHING)]
        for command in COMMANDS
        if (install, command) != ("server", "server start")  # it would start
    ],
)
def test_every_verb_of_an_install_that_lacks_an_extra_ends_with_one_line(
    tmp_path: Path, install: str, missing: list[str], command: str
) -> None:
    program = f"""
import sys
sys.modules.update(dict.fromkeys({missing}))
from edgefl.cli.main import main
main({COMMANDS[command]})
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1
    assert (done.returncode == 3) == (command in NEED[install]), done.stderr
    assert ("edgefl-toolkit[" in done.stderr) == (command in NEED[install])


def test_python_m_edgefl_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "edgefl", "--version"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout[:9]) == (0, "edgefl 0.")
