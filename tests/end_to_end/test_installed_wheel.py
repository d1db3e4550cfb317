"""What a user gets from the wheel in an empty environment, on every Python at hand; needs a package registry."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from interpreters import EXPECTED
from server_process import free_port

pytestmark = [pytest.mark.network, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
NOT_ON_A_DEVICE = {"tensorflow", "keras", "fastapi", "starlette", "uvicorn", "sqlalchemy", "alembic", "torch", "grpcio"}


def run(*command: str | Path, cwd: Path, check: bool = True, **environment: str) -> "subprocess.CompletedProcess[str]":
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=1200,
    )
    if check:
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheels")
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "-w", folder, ROOT, cwd=folder)
    assert [path.suffix for path in folder.iterdir()] == [".whl"]
    return folder


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory, wheels: Path) -> Path:
    """An environment's bin folder with ``edgefl-toolkit[device]`` in it and nothing else."""
    folder = tmp_path_factory.mktemp("device") / "env"
    run(sys.executable, "-m", "venv", folder, cwd=folder.parent)
    run(
        folder / "bin" / "pip",
        "install",
        "-q",
        "-c",
        ROOT / "constraints.txt",
        "--find-links",
        wheels,
        "edgefl-toolkit[device]",
        cwd=folder.parent,
    )
    return folder / "bin"


@pytest.fixture(scope="module")
def keras_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keras") / "model.keras"
    program = f"""
import keras
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(3, "softmax")])
model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
model.save({str(path)!r})
"""
    run(sys.executable, "-c", program, cwd=path.parent)
    return path


def test_a_device_has_no_tensorflow_web_framework_or_database(device: Path, tmp_path: Path) -> None:
    listing = json.loads(run(device / "pip", "list", "--format", "json", cwd=tmp_path).stdout)
    installed = {entry["name"].lower(): entry["version"] for entry in listing}
    assert not NOT_ON_A_DEVICE & set(installed)
    assert EXPECTED[-1] in installed
    assert installed["numpy"].startswith("1." if EXPECTED[-1] == "tflite-runtime" else "2.")


def test_editors_and_type_checkers_find_an_editable_install(tmp_path: Path) -> None:
    """They read the lines of a .pth file, and know nothing of import hooks."""
    run(sys.executable, "-m", "venv", "env", cwd=tmp_path)
    run(tmp_path / "env" / "bin" / "pip", "install", "-q", "--no-deps", "-e", ROOT, cwd=tmp_path)
    (pth,) = (tmp_path / "env" / "lib").glob("python*/site-packages/*edgefl*.pth")
    folders = ("", "converters", "device_runtime", "server", "simulation")
    assert pth.read_text().split() == [str(ROOT / folder) for folder in folders]


def test_a_device_has_its_verbs(device: Path, tmp_path: Path) -> None:
    assert "device" in run(device / "edgefl", "--help", cwd=tmp_path).stdout
    assert "run" in run(device / "edgefl", "device", "--help", cwd=tmp_path).stdout


def test_convert_answers_with_the_line_that_installs_it_and_then_works(
    device: Path, wheels: Path, keras_file: Path, tmp_path: Path
) -> None:
    refused = run(device / "edgefl", "convert", keras_file, "-o", "model.tflite", cwd=tmp_path, check=False)
    assert refused.returncode == 3, refused.stderr
    assert not (tmp_path / "model.tflite").exists()
    found = re.search(r"Install it with: (.*)$", refused.stderr.strip())
    assert found is not None, refused.stderr
    # The line as a shell runs it, on another copy of the environment's packages so that `device` stays small.
    run(sys.executable, "-m", "venv", "env", cwd=tmp_path)
    line = found[1].replace(str(device), str(tmp_path / "env" / "bin"))
    assert str(tmp_path) in line
    constraints = str(ROOT / "constraints.txt")
    run("sh", "-c", line, cwd=tmp_path, EDGEFL_WHEELS=str(wheels), PIP_CONSTRAINT=constraints)
    run(tmp_path / "env" / "bin" / "edgefl", "convert", keras_file, "-o", "model.tflite", cwd=tmp_path)

    step = """
import sys
import numpy as np
import edgefl
model = edgefl.TrainableModel("model.tflite")
x, y = np.random.default_rng(0).normal(size=(32, 4)).astype("float32"), np.arange(32) % 3
before = model.weights.copy()
losses = model.fit(x, y, epochs=20, learning_rate=0.5).history["loss"]
assert losses[-1] < losses[0], losses
assert np.any(model.delta(before))
assert "tensorflow" not in sys.modules
"""
    run(device / "python", "-c", step, cwd=tmp_path)


MINORS = ("3.10", "3.11", "3.12", "3.13")
"""The Pythons that edgefl promises to run on."""

ABOUT = """
import sys, importlib.metadata, importlib.util
found = {each.metadata["Name"].lower(): each.version for each in importlib.metadata.distributions()}
print("tflite-runtime" in found, "ai-edge-litert" in found, found.get("numpy", "").split(".")[0])
"""

STEP = """
import numpy as np, edgefl
model = edgefl.TrainableModel("model.tflite")
x, y = np.random.default_rng(0).normal(size=(32, 4)).astype("float32"), np.arange(32) % 3
losses = model.fit(x, y, epochs=20, learning_rate=0.5).history["loss"]
assert losses[-1] < losses[0], losses
"""

SIMULATE = "--data rows.npz --devices 4 --cohort 2 --rounds 2 --batch-size 8 --workers 1"


def at_hand() -> dict[str, str]:
    """The Pythons that are installed here: on the path, or among those of pyenv."""
    found = {}
    for minor in MINORS:
        named = [shutil.which(f"python{minor}"), *Path.home().glob(f".pyenv/versions/{minor}.*/bin/python")]
        check = f"import ensurepip, sys; sys.exit('%d.%d' % sys.version_info[:2] != '{minor}')"
        for each in filter(None, named):
            if subprocess.run([each, "-c", check], capture_output=True, check=False).returncode == 0:
                found[minor] = str(each)
                break
    return found


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory, keras_file: Path) -> Path:
    path = tmp_path_factory.mktemp("converted") / "model.tflite"
    run(sys.executable, "-m", "edgefl", "convert", keras_file, "-o", path, "--batch-size", "8", cwd=path.parent)
    return path


@pytest.mark.parametrize("extra", ["convert", "device", "server", "simulate", "tables", "ray", "examples", "all"])
@pytest.mark.parametrize("minor", MINORS)
def test_each_extra_can_be_installed_and_does_its_work(
    minor: str, extra: str, wheels: Path, keras_file: Path, model_file: Path, tmp_path: Path
) -> None:
    python = at_hand().get(minor)
    if python is None:
        pytest.skip(f"Python {minor} is not installed here")
    run(python, "-m", "venv", "env", cwd=tmp_path)
    try:
        # Without constraints: whatever is newest today is what a user gets.
        install = [tmp_path / "env/bin/pip", "install", "-q", "--find-links", wheels, f"edgefl-toolkit[{extra}]"]
        needs_newer = minor == "3.10" and extra in ("convert", "all")
        done = run(*install, cwd=tmp_path, check=not needs_newer, PIP_CONSTRAINT="", PYTHONPATH="")
        if needs_newer:  # refused at once, and not by a converter that fails later
            assert done.returncode != 0
            # As pip says it depends on whether it sees the versions that are for another Python.
            assert re.search(r"keras>=3\.15|'keras' requires a different Python", done.stderr), done.stderr
            return
        _does_its_work(tmp_path / "env/bin", extra, minor in ("3.10", "3.11"), keras_file, model_file, tmp_path)
    finally:
        shutil.rmtree(tmp_path / "env")  # gigabytes, of which a test keeps three folders


def _does_its_work(bin: Path, extra: str, both: bool, keras_file: Path, model_file: Path, folder: Path) -> None:
    def own(*command: str | Path, **environment: str) -> str:
        return run(*command, cwd=folder, **{"PYTHONPATH": "", **environment}).stdout

    shutil.copy(model_file, folder / "model.tflite")
    write = "import numpy as np; r = np.random.default_rng(0); "
    write += "np.savez('rows.npz', x=r.normal(size=(80, 4)).astype('float32'), y=np.arange(80) % 3)"
    own(bin / "python", "-c", write)
    if extra in ("convert", "device", "simulate", "ray", "all"):
        has_old, has_new, numpy = own(bin / "python", "-c", ABOUT).split()
        assert has_old == str(both)
        assert has_new == str(not both or extra in ("convert", "all"))
        assert numpy == ("1" if both else "2")
        own(bin / "python", "-c", STEP)
    if extra in ("convert", "all"):
        told = own(bin / "edgefl", "convert", keras_file, "-o", "converted.tflite")
        assert "target litert-2: ran on ai-edge-litert" in told
        assert ("target tflite-2.14: ran on tflite-runtime 2.14.0" in told) == both
        told = own(bin / "edgefl", "inspect", "converted.tflite")
        assert ("not run for tflite-2.14: tflite-runtime 2.14 or newer is not installed, and" in told) == (not both)
    if extra == "server":
        start = [bin / "edgefl", "server", "start", "--state", "state", "--port", str(free_port()), "--format", "json"]
        server = subprocess.Popen(
            start, cwd=folder, env={**os.environ, "PYTHONPATH": ""}, stdout=subprocess.PIPE, text=True
        )
        try:
            assert server.stdout is not None
            assert "url" in json.loads(server.stdout.readline() or "{}")
            own(bin / "edgefl", "server", "invite", "--state", "state", "--population", "pumps")
        finally:
            server.terminate()
            server.communicate()
    if extra in ("simulate", "ray", "all"):
        source = keras_file if extra == "all" else "model.tflite"
        own(bin / "edgefl", "simulate", source, *SIMULATE.split())
    if extra in ("tables", "all"):
        own(bin / "python", "-c", "import edgefl, pyarrow.parquet")
    if extra in ("ray", "all"):
        own(bin / "python", "-c", "import edgefl, ray")
    if extra in ("examples", "all"):
        own(bin / "python", "-c", "import edgefl, matplotlib.pyplot", MPLBACKEND="agg")
