"""What a user gets from the wheel in an empty environment; needs a package registry."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

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
    assert "tflite-runtime" in installed
    assert installed["numpy"].startswith("1.")


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
