"""A step that is fed only with what changed is the step of a signature runner that is given everything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgefl.errors import DataError, RuntimeFailure
from edgefl.manifest import ModelManifest
from edgefl.model_file import ModelFile
from edgefl_device_runtime.training import TrainableModel
from edgefl_device_runtime.training.interpreter import Interpreter, _Runners
from edgefl_device_runtime.training.randomness import step_seeds
from edgefl_device_runtime.training.train_signature import TrainSignature


def made_up(manifest: ModelManifest, rows: int, seed: int = 0) -> tuple[Any, Any]:
    """Data of the shapes and types that ``train`` takes."""
    random = np.random.default_rng(seed)
    specs = {spec.name: spec for spec in manifest.signatures["train"].inputs}
    # Where they are looked up in an Embedding, they are small numbers of its entries.
    x = [
        np.abs(random.normal(size=(rows, *specs[name].shape[1:]))).astype(specs[name].dtype) for name in manifest.inputs
    ]
    y = [
        random.integers(0, target.classes or 2, (rows, *specs[target.name].shape[1:])).astype(specs[target.name].dtype)
        for target in manifest.targets
    ]
    return x, y


@pytest.mark.parametrize("name", ["mlp", "mlp_adam", "dropout", "batch_norm", "two_inputs"])
def test_steps_are_to_the_bit_those_of_a_signature_runner_given_everything(
    name: str, runtime: str, request: pytest.FixtureRequest
) -> None:
    file = request.getfixturevalue(f"{name}_file")
    model = TrainableModel(file, runtime=runtime)
    manifest, size = model.manifest, model.manifest.batch_size
    tensors = {spec.name: spec.tensor for spec in manifest.signatures["train"].inputs}
    outputs = {spec.name: spec.tensor for spec in manifest.signatures["train"].outputs}
    reference = Interpreter(file, runtime=runtime)
    train = reference.signature("train")
    names = [*manifest.inputs, *(target.name for target in manifest.targets)]
    for step in range(4):
        x, y = made_up(manifest, size, step)
        given = {tensors[each]: array for each, array in zip(names, [*x, *y], strict=True)}
        given[tensors["sample_weight"]] = np.ones(size, np.float32)
        given[tensors["learning_rate"]] = np.full(1, 0.1 if step % 2 else 0.05, np.float32)
        if "seed" in tensors:
            given[tensors["seed"]] = step_seeds(1, step, 0)
        expected = train(given)[outputs["loss"]].item()
        assert model.train_on_batch(x, y, learning_rate=0.1 if step % 2 else 0.05)["loss"] == expected
        # Other signatures in between change nothing, nor do they keep the next step from running.
        model.evaluate(x, y)
        model.predict(x)
    state = reference.signature("get_state")({})
    for spec in manifest.signatures["get_state"].outputs:
        np.testing.assert_array_equal(model.get_state()[spec.name], state[spec.tensor].reshape(spec.shape))


def test_what_is_fed_stays_until_it_is_fed_again(mlp_file: Path, runtime: str) -> None:
    manifest = ModelFile.read(mlp_file).manifest
    x, y = made_up(manifest, manifest.batch_size)
    weights = np.ones(manifest.batch_size, np.float32)
    losses = []
    for every_time in (False, True):
        interpreter = Interpreter(mlp_file, runtime=runtime)
        trainer = TrainSignature(interpreter, manifest)
        trainer.begin(0.3)
        loss = []
        for _ in range(5):
            if every_time:
                trainer.begin(0.2)
                trainer.begin(0.3)
            loss.append(trainer.step([*x, *y], weights, 0))
            interpreter.signature("get_state")({})
        losses.append(loss)
    assert losses[0] == losses[1]
    assert len(set(losses[0])) == 5


@pytest.mark.parametrize("name", ["mlp_adam", "cnn", "conv1d", "dropout", "two_inputs", "federated"])
def test_a_step_leaves_all_its_inputs_as_they_were_fed(name: str, runtime: str, request: pytest.FixtureRequest) -> None:
    file = request.getfixturevalue(f"{name}_file")
    manifest = ModelFile.read(file).manifest
    interpreter = Interpreter(file, runtime=runtime)
    first, trainer = interpreter.first_signature("train"), TrainSignature(interpreter, manifest)
    x, y = made_up(manifest, manifest.batch_size)
    trainer.begin(0.25)
    for _ in range(2):
        trainer.step([*x, *y], np.ones(manifest.batch_size, np.float32), 7)
        interpreter.signature("get_state")({})
        interpreter.signature("get_weights")({})
    fed = dict(zip([*manifest.inputs, *(target.name for target in manifest.targets)], [*x, *y], strict=True))
    fed["sample_weight"] = np.ones(manifest.batch_size, np.float32)
    fed |= {"learning_rate": np.full(1, 0.25, np.float32), "seed": np.full(1, 7), "mu": np.zeros(1)}
    for spec in manifest.signatures["train"].inputs:
        np.testing.assert_array_equal(first.fetch(first.inputs[spec.tensor]), fed[spec.name], err_msg=spec.name)


def test_a_users_arrays_are_read_during_the_call_only_and_never_changed(mlp_file: Path, runtime: str) -> None:
    first, second = (TrainableModel(mlp_file, runtime=runtime) for _ in range(2))
    batches = [made_up(first.manifest, first.manifest.batch_size, seed) for seed in range(3)]
    expected = [first.train_on_batch(x, y) for x, y in batches]
    (x,), (y,) = made_up(first.manifest, first.manifest.batch_size)
    for ((new_x,), (new_y,)), logs in zip(batches, expected, strict=True):
        x[...], y[...] = new_x, new_y  # one buffer, filled again, as a user may do
        assert second.train_on_batch(x, y) == logs
        np.testing.assert_array_equal(x, new_x)
    np.testing.assert_array_equal(first.weights, second.weights)


@pytest.mark.parametrize(
    "change",
    [
        lambda array: array.astype(np.float64 if array.dtype.kind == "f" else np.int64),
        lambda array: array.astype(array.dtype.newbyteorder()),
        lambda array: np.asfortranarray(array),
        lambda array: np.repeat(array, 2, 0)[::2],
        lambda array: array.tolist(),
        lambda array: np.frombuffer(array.tobytes(), array.dtype).reshape(array.shape),
    ],
)
def test_an_array_of_another_type_or_order_gives_the_same_step(mlp_file: Path, runtime: str, change: Any) -> None:
    plain, changed = (TrainableModel(mlp_file, runtime=runtime) for _ in range(2))
    (x,), (y,) = made_up(plain.manifest, plain.manifest.batch_size)
    assert changed.train_on_batch(change(x), change(y)) == plain.train_on_batch(x, y)
    np.testing.assert_array_equal(changed.weights, plain.weights)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_a_batch_that_is_not_finite_is_refused_and_large_numbers_whose_sum_overflows_are_not(
    mlp_file: Path, wrong: float
) -> None:
    model = TrainableModel(mlp_file)
    (x,), (y,) = made_up(model.manifest, model.manifest.batch_size)
    x[3].flat[0] = wrong
    with pytest.raises(DataError, match="in row 3"):
        model.train_on_batch(x, y)
    x[...] = 3e38
    model.train_on_batch(x, y, learning_rate=0.0)
    y[2] = 1000
    with pytest.raises(DataError, match="got 1000 in row 2"):
        model.train_on_batch(x, y)


def test_a_single_number_is_no_batch(mlp_file: Path) -> None:
    model = TrainableModel(mlp_file)
    (x,), (y,) = made_up(model.manifest, model.manifest.batch_size)
    with pytest.raises(DataError, match="expects shape"):
        model.train_on_batch(x, y[0, ...])
    with pytest.raises(DataError, match="same number of rows"):
        model.train_on_batch(x, y[:-1])


def test_an_error_that_somebody_keeps_does_not_keep_the_next_step_from_running(mlp_file: Path, runtime: str) -> None:
    manifest = ModelFile.read(mlp_file).manifest
    interpreter = Interpreter(mlp_file, runtime=runtime)
    trainer = TrainSignature(interpreter, manifest)
    trainer.begin(0.1)
    kept = []
    for _ in range(2):
        with pytest.raises(RuntimeFailure) as caught:
            interpreter.signature("evaluate")({"no such input": np.ones(1)})
        kept.append(caught.value)
    x, y = made_up(manifest, manifest.batch_size)
    trainer.step([*x, *y], np.ones(manifest.batch_size, np.float32), 0)


def test_only_the_first_signature_is_called_by_the_interpreters_own_inputs(mlp_file: Path, runtime: str) -> None:
    with pytest.raises(RuntimeFailure, match="'evaluate' is not the first one"):
        Interpreter(mlp_file, runtime=runtime).first_signature("evaluate")


def test_a_signature_that_nobody_calls_is_never_allocated(
    wide_file: Path, runtime: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    make = _Runners.make

    def noted(self: _Runners, name: str) -> Any:
        asked.append(name)
        return make(self, name)

    monkeypatch.setattr(_Runners, "make", noted)
    model = TrainableModel(wide_file, runtime=runtime)
    x, y = made_up(model.manifest, 3 * model.manifest.batch_size)
    model.fit(x, y, epochs=2)
    model.train_on_batch(
        [each[: model.manifest.batch_size] for each in x], [each[: model.manifest.batch_size] for each in y]
    )
    # Resetting an optimizer without slots needs no memory worth mentioning (tests/device_runtime/measuring).
    assert set(asked) == {"train", "reset_optimizer"}
