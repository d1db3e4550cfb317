"""`edgefl device check` and `edgefl evaluate`: local data beside a model file, without a server."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import edgefl
from edgefl.model_file import ModelFile
from edgefl_device_runtime.agent.local_data import check_data
from server_process import edgefl as command

MODEL = Path(__file__).parents[2] / "golden" / "dropout.tflite"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Nine rows, one more than a batch, as the model takes them."""
    random = np.random.default_rng(0)
    np.savez(tmp_path / "rows.npz", x=random.normal(size=(9, 6)).astype(np.float32), y=random.integers(0, 3, 9))
    return tmp_path / "rows.npz"


def test_data_that_fits_is_tried_by_steps_of_training_and_nothing_is_left_behind(data: Path) -> None:
    before = MODEL.read_bytes()
    done = command("device", "check", MODEL, "--data", data, "--format", "json")
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert (found["examples"], found["counting"], found["steps_per_epoch"]) == (9, 9, 2)
    assert found["inputs"] == {"input_layer": ["float32", [6]]}
    model = edgefl.TrainableModel(MODEL)
    with np.load(data) as arrays:
        expected = model.fit(arrays["x"], arrays["y"], max_steps=1).history["loss"][0]
    assert found["loss"] == pytest.approx(expected)
    assert MODEL.read_bytes() == before
    assert list(data.parent.iterdir()) == [data]


def test_the_text_names_the_arrays_and_what_training_costs(data: Path) -> None:
    done = command("device", "check", MODEL, "--data", data)
    assert f"{data} fits {MODEL}: 9 examples\n" in done.stdout
    assert "input 'input_layer': float32, a row (6,)" in done.stdout
    assert "2 steps an epoch" in done.stdout


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"x": np.zeros((9, 5), np.float32), "y": np.zeros(9, int)}, "expects shape (rows, 6), got (9, 5)"),
        ({"x": np.zeros((9, 6), np.float32), "y": np.full(9, 7)}, "expects whole numbers from 0 to 2, got 7 in row 0"),
        ({"x": np.zeros((9, 6), np.float32), "y": np.zeros(8, int)}, "equal numbers of rows"),
        ({"x": np.zeros((1, 6), np.float32), "y": np.zeros(1, int)}, "at least 2"),
        (
            {"x": np.zeros((3, 6), np.float32), "y": np.zeros(3, int), "sample_weight": np.array([0.0, 0, 1])},
            "1 example that count",
        ),
        ({"x": np.full((9, 6), np.nan, np.float32), "y": np.zeros(9, int)}, "in row 0"),
        ({"images": np.zeros((9, 6), np.float32), "y": np.zeros(9, int)}, "'input_layer'"),
    ],
)
def test_data_that_does_not_fit_is_refused_as_a_task_would_refuse_it(
    tmp_path: Path, arrays: dict[str, np.ndarray], said: str
) -> None:
    np.savez(tmp_path / "rows.npz", **arrays)
    done = command("device", "check", MODEL, "--data", tmp_path / "rows.npz")
    assert done.returncode == 22
    assert said in done.stderr
    assert done.stdout == ""


def test_training_that_leaves_the_finite_numbers_at_once_is_no_fit(mlp_file: Path, tmp_path: Path) -> None:
    shape = ModelFile.read(mlp_file).manifest.signatures["train"].inputs[0].shape[1:]
    x = (3e38 * np.random.default_rng(0).uniform(-1, 1, (9, *shape))).astype(np.float32)
    np.savez(tmp_path / "rows.npz", x=x, y=np.arange(9) % 2)
    done = command("device", "check", mlp_file, "--data", tmp_path / "rows.npz")
    assert done.returncode == 22
    assert "leaves the finite numbers within 3 steps" in done.stderr
    assert "--learning-rate" in done.stderr


def test_the_fastest_step_is_told(data: Path) -> None:
    ticks = iter([0.0, 5.0, 5.0, 5.25, 6.0, 7.0])
    assert check_data(MODEL, str(data), clock=lambda: next(ticks)).seconds_per_step == 0.25


def test_a_model_is_evaluated_with_its_own_and_with_trained_weights(data: Path) -> None:
    model = edgefl.TrainableModel(MODEL)
    with np.load(data) as arrays:
        x, y = arrays["x"], arrays["y"]
    own = model.evaluate(x, y)
    model.fit(x, y, epochs=5)
    trained = model.evaluate(x, y)
    flat, named = data.with_name("trained.npy"), data.with_name("trained.npz")
    np.save(flat, model.weights)
    np.savez(named, **{p.name: v for p, v in zip(model.manifest.parameters, model.get_weights(), strict=True)})
    for given, expected in [([], own), (["--weights", flat], trained), (["--weights", named], trained)]:
        done = command("evaluate", MODEL, *given, "--data", data, "--format", "json")
        assert (done.returncode, done.stderr) == (0, "")
        found = json.loads(done.stdout)
        assert found["metrics"] == pytest.approx(expected)
        assert found["examples"] == 9
    assert trained["loss"] < own["loss"]


@pytest.mark.parametrize(
    ("name", "content", "code", "said"),
    [
        ("w.npy", np.zeros(5, np.float32), 22, "Expected a float32 vector of shape"),
        ("w.npz", {"dense/kernel": np.zeros(5, np.float32)}, 22, "missing"),
        ("w.txt", b"none", 22, "neither a .npy file of the flat vector"),
        ("w.npy", None, 52, "Could not read"),
    ],
)
def test_weights_of_something_else_are_refused(data: Path, name: str, content: object, code: int, said: str) -> None:
    file = data.with_name(name)
    if isinstance(content, np.ndarray):
        np.save(file, content)
    elif isinstance(content, dict):
        np.savez(file, **content)
    elif isinstance(content, bytes):
        file.write_bytes(content)
    done = command("evaluate", MODEL, "--weights", file, "--data", data)
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr
