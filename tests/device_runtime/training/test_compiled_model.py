"""LiteRT's CompiledModel behind the interpreter's face. What every runtime must do is in the tests beside this one."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest

from edgefl.errors import RuntimeFailure
from edgefl.model_file import ModelFile
from edgefl.targets import COMPILED_MODEL
from edgefl_device_runtime.agent.device import _runtimes
from edgefl_device_runtime.tasks import ModelTrainer
from edgefl_device_runtime.training import TrainableModel
from edgefl_device_runtime.training.interpreter import Interpreter, runtime_version
from edgefl_device_runtime.training.threads import time_threads


def made_up(model: TrainableModel, rows: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    random = np.random.default_rng(0)
    specs = {spec.name: spec for spec in model.manifest.signatures["train"].inputs}
    # Where they are looked up in an Embedding, they are small numbers of its entries.
    x = [
        np.abs(random.normal(size=(rows, *specs[name].shape[1:]))).astype(specs[name].dtype)
        for name in model.manifest.inputs
    ]
    y = [
        random.integers(0, target.classes or 2, (rows, *specs[target.name].shape[1:])).astype(specs[target.name].dtype)
        for target in model.manifest.targets
    ]
    return x, y


@pytest.mark.parametrize("name", ["mlp_adam", "cnn", "dropout", "batch_norm", "two_inputs", "personal"])
def test_it_trains_and_evaluates_to_the_bits_of_the_interpreter(name: str, request: pytest.FixtureRequest) -> None:
    found = []
    for runtime in ("ai-edge-litert", COMPILED_MODEL):
        model = TrainableModel(request.getfixturevalue(f"{name}_file"), runtime=runtime)
        x, y = made_up(model, 3 * model.manifest.batch_size)
        history = model.fit(x, y, epochs=2, seed=3)
        found.append((history.history, model.evaluate(x, y), model.get_state()))
    assert found[0][:2] == found[1][:2]
    assert found[0][2].keys() == found[1][2].keys()
    for tensor, values in found[0][2].items():
        assert values.dtype == found[1][2][tensor].dtype
        np.testing.assert_array_equal(values, found[1][2][tensor])


def test_what_is_packed_lies_in_a_file_without_a_name(
    cnn_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "model.tflite"
    copy.write_bytes(cnn_file.read_bytes())
    made = []
    mkstemp = tempfile.mkstemp

    def making(*given: str, **named: object) -> tuple[int, str]:
        made.append(mkstemp(*given, **named))
        return made[-1]

    monkeypatch.setattr(tempfile, "mkstemp", making)
    TrainableModel(copy, runtime=COMPILED_MODEL)
    assert [Path(path).parent for _, path in made if path.endswith(".part")] == [tmp_path]
    assert list(tmp_path.iterdir()) == [copy]


def test_it_loads_where_no_such_file_can_be_made(cnn_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mkstemp = tempfile.mkstemp

    def refusing(*given: str, **named: object) -> tuple[int, str]:
        if named.get("suffix") == ".part":
            raise PermissionError(13, "Permission denied")
        return mkstemp(*given, **named)

    monkeypatch.setattr(tempfile, "mkstemp", refusing)
    model = TrainableModel(cnn_file, runtime=COMPILED_MODEL)
    assert np.isfinite(model.fit(*made_up(model, 8), epochs=1).history["loss"]).all()


def test_arrays_that_its_binding_would_take_for_others_are_refused(mlp_file: Path) -> None:
    manifest = ModelFile.read(mlp_file).manifest
    infer = Interpreter(mlp_file, runtime=COMPILED_MODEL).signature("infer")
    [spec] = manifest.signatures["infer"].inputs
    for wrong in (np.ones(3, np.float32), np.ones(spec.shape, np.int32), np.ones(spec.shape[::-1], np.float32)):
        with pytest.raises(RuntimeFailure, match=r"expects float32 \(8, 20\), got"):
            infer({spec.tensor: wrong})
    with pytest.raises(RuntimeFailure, match=f"expected the inputs {spec.tensor}, got none"):
        infer({})
    assert infer({spec.tensor: np.ones(spec.shape, np.float32)})


def test_a_device_that_trains_with_it_says_so_and_counts_as_one_with_its_distribution(mlp_file: Path) -> None:
    trainer = ModelTrainer(TrainableModel(mlp_file, runtime=COMPILED_MODEL))
    assert trainer.version.endswith(f" {COMPILED_MODEL}/{runtime_version('ai-edge-litert')}")
    assert runtime_version(COMPILED_MODEL)[0].isdigit()
    assert _runtimes(COMPILED_MODEL) == ("ai-edge-litert",)
    assert Interpreter(mlp_file, runtime=COMPILED_MODEL, target="litert-2").runtime == COMPILED_MODEL
    with pytest.raises(RuntimeFailure, match=r"made for the target tflite-2\.14"):
        Interpreter(mlp_file, runtime=COMPILED_MODEL, target="tflite-2.14")


def test_threads_are_chosen_for_it_as_for_the_others(mlp_file: Path) -> None:
    threads, seconds = time_threads(mlp_file, ModelFile.read(mlp_file).manifest, COMPILED_MODEL, [1, 2])
    assert threads in (1, 2)
    assert set(seconds) <= {1, 2}
