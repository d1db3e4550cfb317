"""The command line as a user meets it: a process, its output and its exit code."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from edgefl.parts import VERBS, load


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
REMOTE = ["--server", "http://127.0.0.1:1"]
COMMANDS = {
    "convert": ["convert", "model.keras", "-o", "model.tflite"],
    "verify": ["verify", "model.tflite", "--against", "model.keras"],
    "export": ["export", "model.tflite", "-o", "model.keras"],
    "inspect": ["inspect", "model.tflite"],
    "server start": ["server", "start", "--state", "state"],
    "server invite": ["server", "invite", *REMOTE, "--population", "p"],
    "run create": ["run", "create", "m.tflite", *REMOTE, "--population", "p", "--rounds", "1", "--target", "1"],
    "run list": ["run", "list", *REMOTE],
    "run status": ["run", "status", "r", *REMOTE],
    "run watch": ["run", "watch", "r", *REMOTE],
    "run stop": ["run", "stop", "r", *REMOTE],
    "run weights": ["run", "weights", "r", *REMOTE, "-o", "weights.npy"],
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


HIT = """
import os, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs begin with it ignored
class Hit:
    def find_spec(self, name, *rest):
        if name == {module!r}:
            try:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(5)
            except KeyboardInterrupt as error:
                raise ImportError("Error importing it") from error
sys.meta_path.insert(0, Hit())
sys.argv = ["edgefl", *{arguments!r}]
from edgefl.__main__ import main
main()
"""


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        ("typer", ["--version"]),
        ("numpy", COMMANDS["inspect"]),
        ("urllib3", COMMANDS["device run"]),
        ("sqlalchemy", COMMANDS["server start"]),
        ("tensorflow", COMMANDS["convert"]),
    ],
)
def test_ctrl_c_in_the_middle_of_an_import_is_130_and_no_traceback(
    tmp_path: Path, module: str, arguments: list[str]
) -> None:
    program = HIT.format(module=module, arguments=arguments)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert done.returncode == 130
    assert done.stderr.strip() == ""


def test_importing_edgefl_imports_no_numpy() -> None:
    program = "import sys, edgefl; assert 'numpy' not in sys.modules; edgefl.ParameterLayout"
    assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == 0


@pytest.mark.parametrize("verb", VERBS)
def test_h_is_help_for_every_verb_and_nobody_offers_to_install_a_completion(verb: str) -> None:
    done = edgefl(verb, "-h")
    assert done.returncode == 0
    assert "Usage: " in done.stdout
    assert "completion" not in done.stdout


def test_a_result_that_cannot_be_written_is_an_error_and_one_that_nobody_reads_on_is_none(tmp_path: Path) -> None:
    program = """
import sys
from edgefl.cli.main import main
from edgefl.cli import inspect
inspect.inspect = lambda: inspect.emit([], inspect.Format.json, str)
main(["inspect"])
"""
    with open("/dev/full", "wb") as full:  # noqa: PTH123 - a device, not a file
        done = subprocess.run([sys.executable, "-c", program], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 52
    assert done.stderr.startswith("edgefl: Could not write the result to standard output")
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([sys.executable, "-c", program], stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


def commands() -> Iterator[tuple[str, ...]]:
    for name, verb in VERBS.items():
        yield (name,)
        found = getattr(load(verb.part), verb.attribute)
        if isinstance(found, typer.Typer):
            yield from ((name, each) for each in typer.main.get_command(found).commands)  # type: ignore[attr-defined]


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_h_is_help_of_every_command_by_its_whole_name(words: tuple[str, ...]) -> None:
    terminal = {**os.environ, "COLUMNS": "100", "TERM": "dumb", "NO_COLOR": "1"}
    program = [sys.executable, "-m", "edgefl.cli.main", *words, "-h"]
    done = subprocess.run(program, capture_output=True, text=True, env=terminal, timeout=60)
    assert done.returncode == 0
    assert f"Usage: edgefl {' '.join(words)} " in done.stdout
    assert "--install-completion" not in done.stdout
