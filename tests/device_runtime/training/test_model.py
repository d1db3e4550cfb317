"""A `TrainableModel` beside Keras, which computed the values in ``NAME.npz`` (tests/build_models.py)."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgefl.errors import DataError, InvalidSettingError, ModelFileError, StorageError
from edgefl.metrics import finalise
from edgefl.model_file import ModelFile
from edgefl_device_runtime.training import Callback, TrainableModel
from interpreters import needs_tflite_runtime

KERAS = ["mlp", "mlp_adam", "cnn", "conv1d", "frozen", "two_inputs"]
CLOSE = {"rtol": 2e-5, "atol": 2e-6}


class Case:
    """A model file and what Keras computed."""

    def __init__(self, file: Path, runtime: str) -> None:
        self.file, self.runtime = file, runtime
        with np.load(file.with_suffix(".npz")) as found:
            self.found = dict(found)
        self.x, self.y = self.several("x"), self.several("y")

    def several(self, name: str) -> Any:
        """A recorded array, or the list of those that were numbered."""
        if name in self.found:
            return self.found[name]
        return [self.found[f"{name}_{index}"] for index in range(len(self.found)) if f"{name}_{index}" in self.found]

    def rows(self, stop: int) -> tuple[Any, Any]:
        cut = [[each[:stop] for each in data] if isinstance(data, list) else data[:stop] for data in (self.x, self.y)]
        return cut[0], cut[1]

    def load(self) -> TrainableModel:
        return TrainableModel(self.file, runtime=self.runtime)

    def check_history(self, name: str, history: dict[str, list[float]]) -> None:
        assert "loss" in history
        for metric, values in history.items():
            np.testing.assert_allclose(values, self.found[f"{name}/history/{metric}"], rtol=1e-5, err_msg=metric)

    def check_weights(self, name: str, model: TrainableModel) -> None:
        expected = self.several(f"{name}/weights")
        actual = model.get_weights()
        assert len(actual) == len(expected)
        for ours, keras in zip(actual, expected, strict=True):
            np.testing.assert_allclose(ours, keras, **CLOSE)


@pytest.fixture
def case(request: pytest.FixtureRequest, runtime: str) -> Case:
    return Case(request.getfixturevalue(f"{request.param}_file"), runtime)


def cases(*names: str) -> Any:
    return pytest.mark.parametrize("case", names, indirect=True)


@cases(*KERAS)
def test_weights_start_as_keras_had_them_and_in_its_order(case: Case) -> None:
    for ours, keras in zip(case.load().get_weights(), case.several("initial"), strict=True):
        np.testing.assert_array_equal(ours, keras)


@cases(*KERAS)
def test_fit_trains_as_keras_does_with_a_partial_last_batch(case: Case) -> None:
    model = case.load()
    history = model.fit(case.x, case.y, epochs=3, shuffle=False)
    case.check_history("fit", history.history)
    case.check_weights("fit", model)
    assert (history.steps, history.num_examples, history.epoch, history.stopped) == (15, 35, [0, 1, 2], None)


@cases(*KERAS)
def test_three_rows_in_a_batch_of_eight_give_the_step_of_those_three(case: Case) -> None:
    model = case.load()
    logs = model.train_on_batch(*case.rows(3))
    case.check_history("three_rows", {name: [value] for name, value in logs.items()})
    case.check_weights("three_rows", model)


@cases("mlp", "mlp_adam", "frozen")
def test_sample_weights_count_as_in_keras_even_when_some_are_zero(case: Case) -> None:
    model = case.load()
    history = model.fit(case.x, case.y, sample_weight=case.found["sample_weight"], epochs=3, shuffle=False)
    case.check_history("weighted", history.history)
    case.check_weights("weighted", model)
    fresh = case.load()
    x, y = case.rows(13)
    values = fresh.evaluate(x, y, case.found["sample_weight"][:13])
    for metric, value in values.items():
        np.testing.assert_allclose(value, case.found[f"weighted_evaluated/{metric}"], rtol=1e-5, err_msg=metric)


@cases(*KERAS)
def test_evaluate_and_predict_agree_with_keras_for_rows_that_fill_no_batch(case: Case) -> None:
    model = case.load()
    before = model.weights
    x, y = case.rows(13)
    for metric, value in model.evaluate(x, y).items():
        np.testing.assert_allclose(value, case.found[f"evaluated/{metric}"], rtol=1e-5, err_msg=metric)
    predicted, expected = model.predict(x), case.several("predicted")
    if not isinstance(expected, list):
        predicted, expected = [predicted], [expected]
    for ours, keras in zip(predicted, expected, strict=True):
        np.testing.assert_allclose(ours, keras, **CLOSE)
    np.testing.assert_array_equal(model.weights, before)


@cases("batch_norm")
def test_a_model_with_batch_normalisation_leaves_the_rest_out_and_says_so_once(case: Case) -> None:
    model = case.load()
    with pytest.warns(UserWarning, match="last 3 of 35 rows are left out"):
        history = model.fit(case.x, case.y, epochs=3, shuffle=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.fit(case.x, case.y, learning_rate=0.0, shuffle=False)
    assert (history.steps, history.num_examples) == (12, 35)
    case.check_history("full_batches", history.history)
    fresh = case.load()
    fresh.fit(*case.rows(32), epochs=3, shuffle=False)
    case.check_weights("full_batches", fresh)


@pytest.mark.filterwarnings("ignore:The last")
@cases("batch_norm")
def test_the_number_of_examples_does_not_change_with_the_order_of_the_rows(case: Case) -> None:
    model, rows = case.load(), case.rows(19)  # of which an epoch leaves out 3, each seed others
    counts = [model.fit(*rows, epochs=2, seed=seed).num_examples for seed in range(8)]
    assert counts == [19] * 8
    limited = [model.fit(*rows, epochs=9, seed=seed, max_steps=steps) for seed in range(3) for steps in (1, 2, 3)]
    assert [each.num_examples for each in limited] == [8, 16, 19] * 3
    assert model.fit(*rows, max_steps=2).num_examples == 19  # the limit fell together with the end


@cases("batch_norm")
def test_fewer_rows_than_a_batch_are_used_again_where_rows_are_mixed(case: Case) -> None:
    model = case.load()
    before = model.weights
    with pytest.warns(UserWarning, match="filled up to 8"):
        history = model.fit(*case.rows(3))
    assert (history.steps, history.num_examples) == (1, 3)
    assert np.any(model.delta(before)[: model.manifest.layout.weight_size])
    with pytest.raises(DataError, match=r"exactly 8 rows .* got 3"):
        model.train_on_batch(*case.rows(3))
    with pytest.raises(InvalidSettingError, match="'pad' cannot be used"):
        model.fit(case.x, case.y, batch_policy="pad")
    with pytest.raises(InvalidSettingError, match="exactly 8"):
        model.fit(case.x, case.y, batch_size=4)


@cases("mlp")
def test_a_smaller_batch_size_takes_the_steps_of_single_batches(case: Case) -> None:
    fitted, stepped = case.load(), case.load()
    history = fitted.fit(case.x, case.y, batch_size=5, shuffle=False)
    for start in range(0, 35, 5):
        stepped.train_on_batch(case.x[start : start + 5], case.y[start : start + 5])
    assert history.steps == 7
    np.testing.assert_array_equal(fitted.weights, stepped.weights)


@cases("mlp", "dropout")
def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not(case: Case) -> None:
    results = []
    for seed in (4, 4, 5):
        model = case.load()
        model.fit(case.x, case.y, epochs=2, seed=seed)
        results.append(model.weights)
    np.testing.assert_array_equal(results[0], results[1])
    assert np.any(results[0] != results[2])


@cases("dropout")
def test_every_step_draws_another_dropout_mask(case: Case) -> None:
    model = case.load()
    x, y = np.tile(case.x[:1], (8, 1)), np.tile(case.y[:1], 8)
    losses = [model.train_on_batch(x, y, learning_rate=0.0)["loss"] for _ in range(4)]
    assert len(set(losses)) == 4
    assert model.train_on_batch(x, y, learning_rate=0.0, seed=2)["loss"] == losses[2]


@cases("mlp_adam", "dropout", "batch_norm")
@pytest.mark.filterwarnings("ignore:The last 3 of 35 rows")
def test_restoring_the_state_continues_to_the_same_bits(case: Case, tmp_path: Path) -> None:
    whole, first, second = case.load(), case.load(), case.load()
    whole.fit(case.x, case.y, epochs=3, seed=11)
    whole.train_on_batch(*case.rows(8))
    whole.train_on_batch(*case.rows(8))
    first.fit(case.x, case.y, epochs=2, seed=11)
    np.savez(tmp_path / "state.npz", **first.get_state())
    with np.load(tmp_path / "state.npz") as saved:
        second.set_state(saved)
    second.fit(case.x, case.y, epochs=3, initial_epoch=2, seed=11)
    second.train_on_batch(*case.rows(8))
    third = case.load()
    third.set_state(second.get_state())
    third.train_on_batch(*case.rows(8))
    np.testing.assert_array_equal(third.weights, whole.weights)
    for name, value in whole.get_state().items():
        np.testing.assert_array_equal(third.get_state()[name], value, err_msg=name)


@cases("mlp_adam")
def test_reset_optimizer_forgets_the_slots_and_keeps_the_weights(case: Case) -> None:
    fresh, model = case.load(), case.load()
    initial = fresh.weights
    model.fit(case.x, case.y)
    trained = model.weights
    model.reset_optimizer()
    np.testing.assert_array_equal(model.weights, trained)
    model.weights = initial
    for name, value in fresh.get_state().items():
        np.testing.assert_array_equal(model.get_state()[name], value, err_msg=name)


@cases("mlp")
def test_the_learning_rate_is_the_compiled_one_unless_given(case: Case) -> None:
    compiled, given, none = case.load(), case.load(), case.load()
    start = none.weights
    compiled.fit(case.x, case.y)
    given.fit(case.x, case.y, learning_rate=0.1)
    none.fit(case.x, case.y, learning_rate=0.0)
    np.testing.assert_array_equal(compiled.weights, given.weights)
    np.testing.assert_array_equal(none.weights, start)
    for wrong in (-1.0, float("nan"), "0.1"):
        with pytest.raises(InvalidSettingError, match="learning rate"):
            none.fit(case.x, case.y, learning_rate=wrong)  # type: ignore[arg-type]


@cases("mlp", "batch_norm")
def test_the_flat_vector_is_what_the_file_holds_and_delta_is_what_changed(case: Case) -> None:
    model = case.load()
    layout = model.manifest.layout
    start = model.weights
    np.testing.assert_array_equal(start, ModelFile.read(case.file).initial_weights())
    model.train_on_batch(*case.rows(8))
    delta = model.delta(start)
    np.testing.assert_array_equal(delta, model.weights - start)
    assert np.any(delta[: layout.weight_size])
    assert np.any(delta[layout.weight_size :]) == (layout.statistic_size > 0)
    model.weights = start
    np.testing.assert_array_equal(model.delta(start), np.zeros(layout.size, np.float32))


@cases("mlp")
def test_weights_are_set_from_a_list_a_dict_or_a_vector_alike(case: Case) -> None:
    source, target = case.load(), case.load()
    start = target.weights
    source.fit(case.x, case.y)
    by_name = dict(zip((each.name for each in source.manifest.parameters), source.get_weights(), strict=True))
    for give in (
        lambda: target.set_weights(source.get_weights()),
        lambda: target.set_weights(by_name),
        lambda: setattr(target, "weights", source.weights.astype(np.float64)),
    ):
        target.weights = start
        give()
        np.testing.assert_array_equal(target.weights, source.weights)


@cases("mlp")
def test_weights_that_do_not_fit_are_refused_and_nothing_is_set(case: Case) -> None:
    model = case.load()
    start, arrays = model.weights, model.get_weights()
    with pytest.raises(DataError, match=r"list of 4 arrays.*got 3 arrays"):
        model.set_weights(arrays[:3])
    with pytest.raises(DataError, match=r"expects shape \(20, 16\), got \(16,\)"):
        model.set_weights([arrays[1], *arrays[1:]])
    named = dict(zip((each.name for each in model.manifest.parameters), arrays, strict=True))
    named["kernel"] = named.pop("dense/kernel")
    with pytest.raises(DataError, match=r"missing: dense/kernel.*unknown: kernel"):
        model.set_weights(named)
    with pytest.raises(DataError, match="must be finite"):
        model.set_weights([arrays[0] * np.nan, *arrays[1:]])
    with pytest.raises(DataError, match=r"shape \(421,\), got float32 \(420,\)"):
        model.weights = start[:-1]
    with pytest.raises(DataError, match="int64"):
        model.weights = np.zeros(421, np.int64)
    with pytest.raises(DataError, match="one array of shape"):
        model.set_weights(start)
    np.testing.assert_array_equal(model.weights, start)


@cases("two_inputs")
def test_inputs_and_targets_go_by_name_or_in_order(case: Case) -> None:
    listed, named = case.load(), case.load()
    measured, words = case.x
    kind, size = case.y
    listed.fit([measured, words], [kind, size])
    named.fit(
        {"words": words.astype(np.int64), "measured": measured.astype(np.float64)},
        {"size": size[:, 0], "kind": kind.astype(np.float64)},
    )
    np.testing.assert_array_equal(listed.weights, named.weights)


@cases("mlp")
def test_states_of_two_data_sets_add_up_to_the_evaluation_of_both(case: Case) -> None:
    model = case.load()
    parts = [model.evaluate_states(case.x[rows], case.y[rows]) for rows in (slice(11), slice(11, None))]
    summed = {name: parts[0][name] + parts[1][name] for name in parts[0]}
    whole = model.evaluate(case.x, case.y)
    assert summed["rows"] == 35
    for name, value in finalise(model.manifest.metrics, summed).items():
        assert value == pytest.approx(whole[name], rel=1e-6)


@cases("mlp")
def test_training_ends_after_max_steps_or_max_seconds(case: Case) -> None:
    model, stepped = case.load(), case.load()
    history = model.fit(case.x, case.y, epochs=9, max_steps=7, shuffle=False)
    assert (history.steps, history.stopped, history.epoch) == (7, "max_steps", [0, 1])
    stepped.fit(case.x, case.y, shuffle=False)
    stepped.train_on_batch(*case.rows(8))
    stepped.train_on_batch(case.x[8:16], case.y[8:16])
    np.testing.assert_array_equal(model.weights, stepped.weights)
    history = model.fit(case.x, case.y, epochs=9, max_seconds=1e-9)
    assert (history.steps, history.stopped, history.num_examples) == (1, "max_seconds", 8)
    assert model.fit(case.x, case.y, epochs=2, max_steps=10).stopped is None


@cases("mlp")
def test_validation_data_is_evaluated_after_every_epoch(case: Case) -> None:
    model, other = case.load(), case.load()
    history = model.fit(case.x, case.y, epochs=2, validation_data=case.rows(13)).history
    assert set(history) == {
        *model.evaluate(*case.rows(13)),
        *(f"val_{each}" for each in model.evaluate(*case.rows(13))),
    }
    other.fit(case.x, case.y)
    assert history["val_loss"] == [other.evaluate(*case.rows(13))["loss"], model.evaluate(*case.rows(13))["loss"]]


@cases("mlp")
def test_callbacks_hear_of_steps_and_epochs_and_can_end_the_training(case: Case) -> None:
    heard: list[tuple[str, int]] = []

    class Listener(Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            heard.append(("begin", epoch))

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            heard.append(("step", batch))
            self.model.stop_training = logs["loss"] > 0 and len(heard) > 9

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            heard.append(("end", epoch))

    model = case.load()
    history = model.fit(case.x, case.y, epochs=5, callbacks=[Listener()])
    steps = [("step", number) for number in range(5)]
    assert heard == [("begin", 0), *steps, ("end", 0), ("begin", 1), *steps[:2], ("end", 1)]
    assert (history.stopped, history.steps) == ("callback", 7)
    assert model.fit(case.x, case.y).stopped is None


@cases("mlp")
def test_an_exception_in_a_callback_ends_the_training(case: Case) -> None:
    class Abandon(Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            raise KeyboardInterrupt

    model = case.load()
    with pytest.raises(KeyboardInterrupt):
        model.fit(case.x, case.y, callbacks=[Abandon()])
    model.fit(case.x, case.y)


@cases("mlp")
@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"epochs": 0}, "epochs"),
        ({"epochs": 1.5}, "epochs"),
        ({"initial_epoch": -1}, "initial_epoch"),
        ({"batch_size": 9}, "at most 8"),
        ({"batch_size": 0}, "batch_size"),
        ({"max_steps": 0}, "max_steps"),
        ({"max_seconds": 0}, "max_seconds"),
        ({"seed": -1}, "seed"),
        ({"seed": "a"}, "seed"),
        ({"batch_policy": "keep"}, "model, pad, drop, refill"),
    ],
)
def test_a_setting_out_of_range_is_refused_before_anything_is_trained(
    case: Case, setting: dict[str, Any], message: str
) -> None:
    model = case.load()
    start = model.weights
    with pytest.raises(InvalidSettingError, match=message):
        model.fit(case.x, case.y, **setting)
    np.testing.assert_array_equal(model.weights, start)


@cases("mlp")
def test_data_that_does_not_fit_is_refused_by_every_verb(case: Case) -> None:
    model = case.load()
    for verb in (model.fit, model.evaluate, model.train_on_batch):
        with pytest.raises(DataError, match="from 0 to 4, got 5 in row 2"):
            verb(case.x[:4], [0, 1, 5, 0])
        with pytest.raises(DataError, match="Targets are missing"):
            verb(case.x)
    with pytest.raises(DataError, match="validation_data"):
        model.fit(case.x, case.y, validation_data=case.x)
    with pytest.raises(DataError, match=r"expects shape \(rows, 20\), got \(20,\)"):
        model.predict(case.x[0])
    with pytest.raises(DataError, match="at most 8 rows"):
        model.train_on_batch(case.x, case.y)


@cases("mlp")
def test_state_of_another_model_is_refused(case: Case) -> None:
    model = case.load()
    state = model.get_state()
    state.pop("optimizer/iteration")
    with pytest.raises(DataError, match="missing: optimizer/iteration"):
        model.set_state(state)


@cases("mlp")
def test_a_file_is_loaded_from_its_bytes_too(case: Case) -> None:
    model = TrainableModel(case.file.read_bytes(), runtime=case.runtime)
    model.fit(case.x, case.y, epochs=3, shuffle=False)
    case.check_weights("fit", model)


@cases("mlp")
def test_the_models_of_two_loads_do_not_touch_each_other(case: Case) -> None:
    one, other = case.load(), case.load()
    start = other.weights
    one.fit(case.x, case.y)
    np.testing.assert_array_equal(other.weights, start)


@cases("mlp")
def test_a_file_with_a_damaged_graph_or_weight_is_refused(case: Case) -> None:
    data = case.file.read_bytes()
    manifest = data.index(b'{"batch_size"')  # covered by the hash of the whole file only, which a task carries
    end = manifest + len(ModelFile(data).manifest.to_json())
    positions = np.concatenate([np.arange(8, manifest), np.arange(end, len(data))])
    for position in np.random.default_rng(0).choice(positions, 25):
        damaged = bytearray(data)
        damaged[position] ^= 0x55
        with pytest.raises(ModelFileError):
            TrainableModel(bytes(damaged), runtime=case.runtime)


def test_what_is_no_model_file_is_refused(tmp_path: Path, runtime: str) -> None:
    with pytest.raises(StorageError, match=r"missing\.tflite"):
        TrainableModel(tmp_path / "missing.tflite", runtime=runtime)
    empty = tmp_path / "empty.tflite"
    empty.write_bytes(b"")
    with pytest.raises(ModelFileError, match=r"empty\.tflite is not a TFLite file"):
        TrainableModel(empty, runtime=runtime)


@needs_tflite_runtime
@pytest.mark.parametrize("name", ["mlp_adam", "conv1d", "dropout"])
def test_both_interpreters_come_to_nearly_the_same_weights(request: pytest.FixtureRequest, name: str) -> None:
    if "tensorflow" in sys.modules:  # looked for now, as a test before may have imported it
        pytest.skip("run in a process of its own by the test below")
    file = request.getfixturevalue(f"{name}_file")
    ends = []
    for runtime in ("ai-edge-litert", "tflite-runtime"):
        case = Case(file, runtime)
        model = case.load()
        model.fit(case.x, case.y, epochs=3, seed=3)
        ends.append(model.weights)
    # Adam divides by the root of a sum of squares, which amplifies rounding where gradients are tiny.
    np.testing.assert_allclose(ends[0], ends[1], atol=1e-4)


@needs_tflite_runtime
def test_what_tensorflow_in_this_process_forbids_passes_in_another(model_folder: Path) -> None:
    if "tensorflow" not in sys.modules:
        pytest.skip("nothing was left out: TensorFlow is not loaded here")
    command = [sys.executable, "-m", "pytest", "-q", "-k", "tflite-runtime or both_interpreters", Path(__file__).parent]
    environment = {**os.environ, "EDGEFL_TEST_MODELS": str(model_folder)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stdout[-5000:]
