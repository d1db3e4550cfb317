"""A `TrainableModel` beside the Keras model that it was made from, in one process: the same calls, the same results."""

from __future__ import annotations

import csv
import inspect
import io
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import edgefl
from edgefl.errors import DataError, InvalidSettingError
from edgefl_converters.building.building import build
from edgefl_converters.cli.arguments import parse_batch_sizes
from edgefl_converters.settings.options import Options
from edgefl_device_runtime.training import Callback, TrainableModel
from edgefl_device_runtime.training.progress import ProgressLine

BATCH, ROWS = 8, 35
X = np.random.default_rng(0).normal(size=(ROWS, 6)).astype(np.float32)
Y = np.random.default_rng(1).integers(0, 3, ROWS).astype(np.int32)
CLOSE = {"rtol": 2e-4, "atol": 2e-6}


class Pair:
    """A Keras model and the file made from it, both as they were when it was made."""

    def __init__(self, model: keras.Model, *further: int) -> None:
        self.keras, self.initial = model, model.get_weights()
        self.file = build(model, batch_size=BATCH, options=Options(further_batch_sizes=further)).data

    def fresh(self) -> tuple[keras.Model, TrainableModel]:
        self.keras.set_weights(self.initial)
        for variable in self.keras.optimizer.variables:
            variable.assign(np.zeros(variable.shape, variable.dtype) if variable.path != "learning_rate" else variable)
        self.keras.optimizer.learning_rate = 0.1
        return self.keras, TrainableModel(self.file, runtime="ai-edge-litert")

    def fit(self, *data: Any, make: Callable[[], tuple[Any, ...]] | None = None, **settings: Any) -> Any:
        """Calls `fit` of both with the same arguments; returns both histories."""
        found = []
        for model in self.fresh():
            given = {name: value() if inspect.isfunction(value) else value for name, value in settings.items()}
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found.append(model.fit(*(make() if make else data), **{"shuffle": False, "verbose": 0, **given}))
            weights = model.get_weights()
            found.append(weights)
        history, expected, ours, actual = found
        for one, other in zip(expected, actual, strict=True):
            np.testing.assert_allclose(other, one, **CLOSE)
        assert set(ours.history) == set(history.history)
        for name, values in history.history.items():
            np.testing.assert_allclose(ours.history[name], values, **CLOSE, err_msg=name)
        assert ours.epoch == history.epoch
        return history, ours


def classifier(*middle: Any) -> keras.Model:
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(8, "tanh"), *middle, keras.layers.Dense(3, "softmax")]
    )
    model.compile(
        keras.optimizers.SGD(0.1),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
        weighted_metrics=["accuracy"],
    )
    return model


@pytest.fixture(scope="module")
def pair() -> Pair:
    return Pair(classifier())


@pytest.fixture(scope="module")
def mixing() -> Pair:
    return Pair(classifier(keras.layers.BatchNormalization()))


@pytest.fixture(scope="module")
def sized() -> Pair:
    """A file of several batch sizes, of a model that could not be trained with fewer rows than one."""
    return Pair(classifier(keras.layers.BatchNormalization()), 1, 5)


@pytest.fixture(scope="module")
def named() -> Pair:
    """Outputs in a dict whose keys are in another order than the layers' names, and none of them."""
    keras.utils.set_random_seed(4)
    x = keras.Input((6,), name="readings")
    hidden = keras.layers.Dense(5, "tanh")(x)
    kind, size = keras.layers.Dense(3, "softmax", name="b")(hidden), keras.layers.Dense(1, name="a")(hidden)
    model = keras.Model({"values": x}, {"aaa_kind": kind, "zzz_size": size})
    model.compile(
        keras.optimizers.SGD(0.1), {"aaa_kind": "sparse_categorical_crossentropy", "zzz_size": "mse"}, metrics={}
    )
    return Pair(model)


def batches(rows: int = BATCH, weights: bool = False) -> list[tuple[Any, ...]]:
    parts = [slice(start, start + rows) for start in range(0, ROWS, rows)]
    weight = np.linspace(0, 2, ROWS, dtype=np.float32)
    return [(X[part], Y[part], weight[part]) if weights else (X[part], Y[part]) for part in parts]


class Batches(keras.utils.PyDataset):  # type: ignore[misc]
    """Batches of a user's as Keras wants them."""

    def __init__(self, rows: int = BATCH, weights: bool = False) -> None:
        super().__init__()
        self.all = batches(rows, weights)
        self.epochs = 0

    def __len__(self) -> int:
        return len(self.all)

    def __getitem__(self, index: int) -> Any:
        return self.all[index]

    def on_epoch_end(self) -> None:
        self.epochs += 1


def dataset(rows: int = BATCH) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices((X, Y)).batch(rows)


def test_the_arguments_of_fit_stand_in_the_order_of_keras() -> None:
    theirs = [name for name in inspect.signature(keras.Model.fit).parameters if name != "self"]
    assert list(inspect.signature(TrainableModel.fit).parameters)[1 : 1 + len(theirs)] == theirs


def test_outputs_in_a_dict_are_predicted_in_a_dict_and_trained_by_its_keys(named: Pair) -> None:
    model, ours = named.fresh()
    expected, actual = model.predict({"values": X}, verbose=0), ours.predict({"values": X})
    assert set(actual) == {"aaa_kind", "zzz_size"}
    for key, values in expected.items():
        np.testing.assert_allclose(actual[key], values, **CLOSE)
    y = {"aaa_kind": Y, "zzz_size": X[:, :1]}
    history = model.fit({"values": X}, y, batch_size=BATCH, epochs=2, shuffle=False, verbose=0).history
    np.testing.assert_allclose(
        ours.fit({"values": X}, y, epochs=2, shuffle=False).history["loss"], history["loss"], rtol=1e-4
    )
    for one, other in zip(model.get_weights(), ours.get_weights(), strict=True):
        np.testing.assert_allclose(other, one, **CLOSE)
    with pytest.raises(DataError, match="a dict of aaa_kind, zzz_size; y is a list"):
        ours.fit(X, [Y, X[:, :1]])


@pytest.mark.parametrize(
    "settings",
    [
        {"validation_split": 0.3},
        {"validation_split": 0.3, "class_weight": {0: 2.0, 2: 0.25}},
        {"class_weight": {0: 2.0, 1: 0.5}},
        {"class_weight": {0: 0, 1: 0, 2: 0}},
        {"steps_per_epoch": 2, "epochs": 5},
        {"steps_per_epoch": 7, "epochs": 2},
        {"validation_data": (X[:13], Y[:13]), "validation_freq": 2, "epochs": 4},
        {"validation_data": (X[:13], Y[:13]), "validation_freq": [1, 3], "epochs": 3},
        {"validation_data": (X, Y), "validation_steps": 2, "validation_batch_size": 4},
        {"validation_data": (X, Y, np.linspace(0, 1, ROWS, dtype=np.float32))},
        {"validation_data": dataset},
        {"validation_data": Batches, "validation_steps": 1},
    ],
    ids=str,
)
def test_settings_of_fit_do_what_they_do_in_keras(pair: Pair, settings: dict[str, Any]) -> None:
    settings = {name: (lambda make=value: make()) if value is Batches else value for name, value in settings.items()}
    pair.fit(X, Y, batch_size=BATCH, **{"epochs": 2, **settings})


@pytest.mark.parametrize("rows", [BATCH, 5])
def test_batches_of_a_generator_a_dataset_and_a_pydataset_are_steps_as_in_keras(pair: Pair, rows: int) -> None:
    def generator() -> Iterator[tuple[Any, ...]]:
        yield from batches(rows)

    def endless() -> Iterator[tuple[Any, ...]]:
        while True:
            yield from batches(rows, weights=True)

    pair.fit(make=lambda: (generator(),))
    pair.fit(make=lambda: (endless(),), steps_per_epoch=3, epochs=4)
    pair.fit(make=lambda: (dataset(rows),), epochs=2)
    pair.fit(make=lambda: (dataset(rows),), epochs=4, steps_per_epoch=3)
    pair.fit(make=lambda: (dataset(rows).repeat(),), epochs=2, steps_per_epoch=6)
    pair.fit(make=lambda: (dataset(rows),), epochs=2, class_weight={0: 1.0, 1: 3.0, 2: 1.0})
    pair.fit(make=lambda: (Batches(rows, weights=True),), epochs=2)
    pair.fit(make=lambda: (Batches(rows),), epochs=3, steps_per_epoch=2)
    pair.fit(make=lambda: (Batches(rows),), epochs=2, class_weight={0: 0.5})


def test_evaluate_and_predict_take_batches_of_any_size(pair: Pair) -> None:
    model, ours = pair.fresh()
    for rows in (3, BATCH, 20):
        for make in (dataset, Batches, lambda rows: iter(batches(rows))):
            expected = model.evaluate(X, Y, verbose=0, return_dict=True)
            assert ours.evaluate(make(rows)) == pytest.approx(expected, rel=1e-4)
            np.testing.assert_allclose(ours.predict(make(rows)), model.predict(X, verbose=0), **CLOSE)
    two = model.evaluate(dataset(10), steps=2, verbose=0, return_dict=True)
    assert ours.evaluate(dataset(10), steps=2) == pytest.approx(two, rel=1e-4)
    assert ours.evaluate(X, Y, batch_size=10, steps=2) == pytest.approx(two, rel=1e-4)
    assert ours.predict(X, batch_size=10, steps=2).shape == (20, 3)


def test_a_generator_that_runs_out_ends_the_training_and_history_says_so(pair: Pair) -> None:
    _, ours = pair.fresh()
    with pytest.warns(UserWarning, match="ran out after 1 of the 2 steps"):
        history = ours.fit(iter(batches()), epochs=9, steps_per_epoch=2)
    assert (history.steps, history.stopped, history.epoch, history.num_examples) == (5, "data", [0, 1, 2], 16)
    history = ours.fit(iter(batches()), epochs=2)
    assert (history.steps, history.stopped, history.num_examples) == (5, "data", ROWS)
    with pytest.raises(DataError, match="list_iterator has no batch in epoch 1"):
        ours.fit(iter([]))
    with pytest.raises(DataError, match="no batches any more"):
        ours.fit(X, Y, epochs=2, validation_data=iter(batches()))


def test_the_order_of_a_pydataset_follows_from_the_seed_and_it_hears_of_epochs(pair: Pair) -> None:
    results = []
    for seed, shuffle in ((0, True), (0, True), (1, True), (0, False)):
        _, ours = pair.fresh()
        data = Batches()
        ours.fit(data, epochs=2, seed=seed, shuffle=shuffle)
        assert data.epochs == 2
        results.append(ours.weights.tobytes())
    assert results[0] == results[1]
    assert len(set(results)) == 3


def test_epochs_of_steps_go_on_to_the_same_bits_after_a_break(pair: Pair) -> None:
    _, whole = pair.fresh()
    whole.fit(X, Y, epochs=5, steps_per_epoch=2, seed=3)
    _, later = pair.fresh()
    later.fit(X, Y, epochs=2, steps_per_epoch=2, seed=3)
    later.fit(X, Y, epochs=5, initial_epoch=2, steps_per_epoch=2, seed=3)
    np.testing.assert_array_equal(later.weights, whole.weights)


@pytest.mark.parametrize(
    ("given", "settings", "error", "message"),
    [
        (lambda: iter(batches(9)), {}, DataError, r"yields a batch of 9 rows; .* at most 8 .* `batch_size=9`"),
        (lambda: dataset(20), {}, DataError, "Dataset yields a batch of 20 rows"),
        (lambda: Batches(), {"y": Y}, InvalidSettingError, "y cannot be given beside a Batches"),
        (lambda: dataset(), {"sample_weight": np.ones(ROWS)}, InvalidSettingError, "sample_weight cannot be given"),
        (lambda: dataset(), {"batch_size": 4}, InvalidSettingError, "batch_size cannot be given beside"),
        (lambda: dataset(), {"validation_split": 0.2}, InvalidSettingError, "validation_split cannot be used"),
        (lambda: iter([(X, Y, Y, Y)]), {}, DataError, "a tuple of 4"),
        (lambda: object(), {}, DataError, "type object is neither arrays nor batches"),
        (lambda: Batches(BATCH, True), {"class_weight": {0: 1.0}}, InvalidSettingError, "cannot both be given"),
    ],
)
def test_batches_that_do_not_fit_are_refused_by_name(
    pair: Pair, given: Callable[[], Any], settings: dict[str, Any], error: type[Exception], message: str
) -> None:
    _, ours = pair.fresh()
    start = ours.weights
    with pytest.raises(error, match=message):
        ours.fit(given(), **settings)
    np.testing.assert_array_equal(ours.weights, start)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"validation_split": 1.0}, "validation_split must be"),
        ({"validation_split": "a"}, "validation_split must be"),
        ({"class_weight": [1, 2]}, "a dict from class numbers"),
        ({"class_weight": {0: -1}}, "of at least 0"),
        ({"class_weight": {0: 1}, "sample_weight": np.ones(ROWS)}, "cannot both be given"),
        ({"steps_per_epoch": 0}, "steps_per_epoch must be"),
        ({"validation_steps": 2}, "neither validation_data nor a split"),
        ({"validation_data": (X, Y), "validation_freq": 0}, "validation_freq must be"),
        ({"verbose": 3}, "verbose must be"),
        ({"callbacks": ["csv"]}, "callbacks expects objects"),
        ({"callbacks": keras.callbacks.EarlyStopping}, "callbacks expects objects"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(pair: Pair, settings: dict[str, Any], message: str) -> None:
    _, ours = pair.fresh()
    with pytest.raises(InvalidSettingError, match=message):
        ours.fit(X, Y, **settings)


def test_a_rest_that_cannot_be_padded_is_left_out_of_a_generator_and_said(mixing: Pair) -> None:
    _, ours = mixing.fresh()
    with pytest.warns(UserWarning, match="fewer than 8 rows are left out"):
        history = ours.fit(iter(batches()))
    assert (history.steps, history.num_examples) == (4, 32)
    with pytest.warns(UserWarning, match="filled up with their own rows"):
        assert ours.fit(iter(batches()), batch_policy="refill").steps == 5
    with pytest.raises(DataError, match=r"no batch in epoch 1 that can be trained on.* of 8 rows"):
        ours.fit(iter(batches(3)))


@pytest.mark.parametrize("size", [1, 5, BATCH])
def test_a_file_of_several_batch_sizes_trains_with_each_as_keras_does(sized: Pair, size: int) -> None:
    rows = size * (ROWS // size)
    pair, callbacks = sized, lambda: [keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.5)]
    pair.fit(X[:rows], Y[:rows], batch_size=size, epochs=2, callbacks=callbacks, validation_data=(X[:1], Y[:1]))
    model, ours = pair.fresh()
    x, y = X[:size], Y[:size]
    for _ in range(2):
        logs = model.train_on_batch(x, y, return_dict=True)
        assert ours.train_on_batch(x, y)["loss"] == pytest.approx(logs["loss"], rel=1e-4)
        model.reset_metrics()
    for one, other in zip(model.get_weights(), ours.get_weights(), strict=True):
        np.testing.assert_allclose(other, one, **CLOSE)
    np.testing.assert_allclose(ours.predict(x), model.predict(x, verbose=0), **CLOSE)


def test_other_batch_sizes_of_such_a_file_are_refused(sized: Pair) -> None:
    _, ours = sized.fresh()
    with pytest.raises(InvalidSettingError, match="exactly 1 or 5 or 8 with this model file, got 4"):
        ours.fit(X, Y, batch_size=4)
    with pytest.raises(DataError, match=r"exactly 5 .* got 4"):
        ours.train_on_batch(X[:4], Y[:4])


def test_keras_s_callbacks_see_and_do_what_they_see_and_do_in_keras(pair: Pair, tmp_path: Path) -> None:
    kinds = {
        "stop": lambda: [keras.callbacks.EarlyStopping("val_loss", patience=1, restore_best_weights=True)],
        "best": lambda: [keras.callbacks.EarlyStopping("val_accuracy", patience=2, restore_best_weights=True)],
        "rate": lambda: [keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.5)],
        "plateau": lambda: [keras.callbacks.ReduceLROnPlateau("val_loss", factor=0.1, patience=1, min_delta=10.0)],
        "nan": lambda: [keras.callbacks.TerminateOnNaN()],
    }
    for name, callbacks in kinds.items():
        data = {"validation_data": (X[:7], (Y[:7] + 1) % 3), "epochs": 8, "batch_size": BATCH}
        history, ours = pair.fit(X, Y, callbacks=callbacks, **data)
        assert (len(ours.epoch) < 8) == (len(history.epoch) < 8) == (name in ("stop", "best")), name
    for number in (0, 1):
        pair.fresh()[number].fit(
            X, Y, epochs=3, shuffle=False, verbose=0, batch_size=BATCH,
            callbacks=[keras.callbacks.CSVLogger(str(tmp_path / f"{number}.csv"))],
        )  # fmt: skip
    rows = [list(csv.DictReader((tmp_path / f"{number}.csv").open())) for number in (0, 1)]
    assert [set(each) for each in rows[0]] == [set(each) for each in rows[1]]
    assert [float(each["loss"]) for each in rows[1]] == pytest.approx(
        [float(each["loss"]) for each in rows[0]], rel=1e-4
    )


def test_a_callback_hears_the_same_calls_with_the_same_logs_as_in_keras(pair: Pair) -> None:
    class Listener(keras.callbacks.Callback):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.heard: list[tuple[Any, ...]] = []

        def __getattribute__(self, name: str) -> Any:
            if not name.startswith("on_") or "predict" in name:
                return super().__getattribute__(name)

            def hear(*arguments: Any, logs: Any = None) -> None:
                logs = logs or (arguments[-1] if arguments and not isinstance(arguments[-1], int) else {}) or {}
                number = [each for each in arguments if isinstance(each, int)]
                self.heard.append((name, *number, {key: round(value, 3) for key, value in sorted(logs.items())}))

            return hear

    listeners = []
    for model in pair.fresh():
        listener = Listener()
        model.fit(X, Y, batch_size=BATCH, epochs=2, shuffle=False, verbose=0, validation_data=(X[:8], Y[:8]),
                  callbacks=[listener])  # fmt: skip
        assert listener.params == {"verbose": 0, "epochs": 2, "steps": 5}
        listeners.append(listener.heard)
    theirs, ours = listeners
    assert [each[:-1] for each in ours] == [each[:-1] for each in theirs]
    for one, other in zip(theirs, ours, strict=True):
        if one[0] != "on_test_batch_end":
            assert other[-1] == pytest.approx(one[-1], abs=2e-3), one


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda path: keras.callbacks.ModelCheckpoint(path / "best.keras"), "ModelCheckpoint"),
        (
            lambda path: keras.callbacks.ModelCheckpoint(path / "w.weights.h5", save_weights_only=True),
            "ModelCheckpoint",
        ),
        (lambda path: keras.callbacks.BackupAndRestore(path), "BackupAndRestore"),
        (lambda path: keras.callbacks.TensorBoard(path), "TensorBoard"),
        (lambda path: keras.callbacks.SwapEMAWeights(), "SwapEMAWeights"),
    ],
)
def test_a_callback_that_cannot_work_is_refused_by_its_name_before_training(
    pair: Pair, tmp_path: Path, make: Callable[[Path], Any], name: str
) -> None:
    _, ours = pair.fresh()
    start = ours.weights
    with pytest.raises(InvalidSettingError, match=f"Keras's callback {name} does not work"):
        ours.fit(X, Y, callbacks=[make(tmp_path)])
    np.testing.assert_array_equal(ours.weights, start)


def test_every_callback_of_keras_works_or_is_refused_by_its_name(pair: Pair, tmp_path: Path) -> None:
    known = {name for name, kind in vars(keras.callbacks).items() if inspect.isclass(kind)}
    arguments: dict[str, tuple[Any, ...]] = {
        "CSVLogger": (str(tmp_path / "log.csv"),),
        "LearningRateScheduler": (lambda epoch, rate: rate,),
        "ModelCheckpoint": (tmp_path / "best.keras",),
        "BackupAndRestore": (tmp_path,),
        "EarlyStopping": ("loss",),
        "ReduceLROnPlateau": ("loss",),
    }
    refused = set()
    for name in sorted(known - {"RemoteMonitor", "OrbaxCheckpoint"}):  # they need other packages
        _, ours = pair.fresh()
        try:
            ours.fit(X, Y, callbacks=getattr(keras.callbacks, name)(*arguments.get(name, ())))
        except InvalidSettingError as error:
            refused.add(name if name in error.message else error.message)
    assert refused == {"BackupAndRestore", "CallbackList", "ModelCheckpoint", "SwapEMAWeights", "TensorBoard"} & known


def test_the_learning_rate_is_the_optimizer_s_and_stays_as_it_was_set(pair: Pair) -> None:
    model, ours = pair.fresh()
    for each in (model, ours):
        each.optimizer.learning_rate = 0.02
        each.fit(X, Y, batch_size=BATCH, shuffle=False, verbose=0)
        each.train_on_batch(X[:8], Y[:8])
    for one, other in zip(model.get_weights(), ours.get_weights(), strict=True):
        np.testing.assert_allclose(other, one, **CLOSE)
    ours.fit(X, Y, learning_rate=0.3)
    assert ours.optimizer.learning_rate == 0.02
    _, other = pair.fresh()
    other.set_state(ours.get_state())
    assert other.optimizer.learning_rate == 0.02
    other.set_state({name: value for name, value in ours.get_state().items() if name != "edgefl/learning_rate"})
    assert other.optimizer.learning_rate == pytest.approx(0.1)
    with pytest.raises(InvalidSettingError, match="learning rate must be"):
        ours.optimizer.learning_rate = -1


def test_the_learning_rate_can_be_assigned_to_as_a_variable_of_keras(pair: Pair) -> None:
    _, device = pair.fresh()
    device.optimizer.learning_rate.assign(0.01)
    assert device.optimizer.learning_rate == device.optimizer.learning_rate.numpy() == 0.01
    with pytest.raises(AttributeError, match=r"no attribute 'iterations': .*`learning_rate` can be read and set"):
        device.optimizer.iterations  # noqa: B018


def test_weights_for_each_output_are_refused_by_that_name(named: Pair) -> None:
    _, device = named.fresh()
    weights = np.ones(ROWS, np.float32)
    for given in ({"aaa_kind": weights, "zzz_size": weights}, [weights, weights]):
        with pytest.raises(DataError, match=r"weights for each output.*`loss_weights`"):
            device.fit({"values": X}, {"aaa_kind": Y, "zzz_size": X[:, :1]}, sample_weight=given)


def test_the_rate_of_a_schedule_cannot_be_set_by_a_callback() -> None:
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(keras.optimizers.schedules.ExponentialDecay(0.1, 2, 0.5)), "mse")
    ours = TrainableModel(build(model, batch_size=BATCH).data, runtime="ai-edge-litert")
    scheduler = keras.callbacks.LearningRateScheduler(lambda epoch: 0.1)
    with pytest.raises(InvalidSettingError, match="schedule ExponentialDecay"):
        ours.fit(X, X[:, :1], callbacks=[scheduler])
    assert ours.fit(X, X[:, :1], learning_rate=0.5).steps == 5


def test_weights_are_kept_in_a_file_and_read_back(pair: Pair, tmp_path: Path) -> None:
    _, ours = pair.fresh()
    ours.fit(X, Y)
    trained = ours.get_weights()
    ours.save_weights(tmp_path / "best.npz")
    with np.load(tmp_path / "best.npz") as found:
        assert set(found) == {each.name for each in ours.manifest.parameters}
    ours.fit(X, Y)
    ours.load_weights(str(tmp_path / "best.npz"))
    for one, other in zip(trained, ours.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(InvalidSettingError, match="already"):
        ours.save_weights(tmp_path / "best.npz", overwrite=False)
    for call in (ours.save_weights, ours.load_weights):
        with pytest.raises(InvalidSettingError, match=r"kept in a \.npz file, got .*\.weights\.h5.*edgefl export"):
            call(tmp_path / "m.weights.h5")
    (tmp_path / "bad.npz").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"bad\.npz is not a file of weights"):
        ours.load_weights(tmp_path / "bad.npz")
    np.savez(tmp_path / "other.npz", other=np.zeros(3))
    with pytest.raises(DataError, match="unknown: other"):
        ours.load_weights(tmp_path / "other.npz")


def test_the_summary_counts_what_keras_counts(mixing: Pair) -> None:
    model, ours = mixing.fresh()
    texts: list[list[str]] = [[], []]
    model.summary(print_fn=lambda text, **_: texts[0].append(text))
    ours.summary(print_fn=texts[1].append)
    theirs, own = ("\n".join(each) for each in texts)
    for line in ("Trainable params:", "Non-trainable params:"):
        count = theirs.split(line)[1].split()[0]
        assert own.split(line)[1].split()[0] == count
    for parameter in ours.manifest.parameters:
        assert parameter.name in own


@pytest.mark.parametrize(
    "name", ["compile", "save", "layers", "fit_generator", "metrics", "predict_on_batch", "whatever"]
)
def test_what_a_model_file_does_not_have_is_named_with_what_to_do(pair: Pair, name: str) -> None:
    _, ours = pair.fresh()
    with pytest.raises(AttributeError, match=f"has no attribute '{name}'{'' if name == 'whatever' else ': .+'}"):
        getattr(ours, name)
    assert not hasattr(ours, "__array__")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_moves_on_a_terminal_and_is_a_line_an_epoch_elsewhere(pair: Pair, monkeypatch: Any) -> None:
    _, ours = pair.fresh()
    for stream, verbose, moves in ((Terminal(), "auto", True), (io.StringIO(), 1, False), (Terminal(), 2, False)):
        monkeypatch.setattr("sys.stdout", stream)
        ours.fit(X, Y, epochs=2, verbose=verbose, validation_data=(X, Y))
        text = stream.getvalue()
        assert ("\r" in text) == moves
        assert text.splitlines()[0] == "Epoch 1/2"
        last = text.replace("\r", "\n").splitlines()[-1]
        assert last.startswith("5/5 ━")
        assert " - accuracy: " in last
        assert " - val_loss: " in last
    for silent, verbose in ((io.StringIO(), "auto"), (Terminal(), 0)):
        monkeypatch.setattr("sys.stdout", silent)
        ours.fit(X, Y, verbose=verbose)
        ours.evaluate(X, Y, verbose=verbose)
        assert silent.getvalue() == ""
    seen = Terminal()
    monkeypatch.setattr("sys.stdout", seen)
    ours.evaluate(X, Y)
    ours.predict(X)
    assert seen.getvalue().replace("\r", "\n").count("5/5") == 2


def test_a_step_that_ends_soon_after_another_is_not_drawn() -> None:
    stream, now = Terminal(), [0.0]
    line = ProgressLine(1, stream, lambda: now[0])
    line.set_params({"epochs": 1, "steps": 1000})
    line.on_epoch_begin(0, {})
    for step in range(1000):
        now[0] += 2.0**-10
        line.on_train_batch_end(step, {"loss": 1.0})
    assert stream.getvalue().count("\r") == 9


def test_a_callback_of_edgefl_is_told_the_same_as_keras_s(pair: Pair) -> None:
    calls: list[str] = []

    class Heard(Callback):
        def on_train_begin(self, logs: Any = None) -> None:
            calls.append("begin")

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            calls.append(f"{batch} {sorted(logs)}")

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            logs["seen"] = 1.0

        def on_train_end(self, logs: Any = None) -> None:
            calls.append(f"end {sorted(logs)}")

    _, ours = pair.fresh()
    history = ours.fit(X[:8], Y[:8], callbacks=Heard())
    names = ["accuracy", "loss", "weighted_accuracy"]
    assert calls == ["begin", f"0 {names}", f"end {sorted([*names, 'seen'])}"]
    assert history.history["seen"] == [1.0]


@pytest.fixture(scope="module")
def judged() -> Pair:
    keras.utils.set_random_seed(5)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(1, "sigmoid")])
    kinds = keras.metrics
    weighted = [
        *("accuracy", kinds.Precision(), kinds.Recall(), kinds.AUC(name="roc"), kinds.AUC(curve="PR", name="pr")),
        *(kinds.SensitivityAtSpecificity(0.5), kinds.PrecisionAtRecall(0.5), kinds.MeanSquaredError(name="square")),
        *(
            kinds.F1Score("macro", threshold=0.5),
            kinds.BinaryIoU(name="iou"),
            kinds.AUC(summation_method="minoring", name="low"),
        ),
    ]
    model.compile(keras.optimizers.SGD(0.1), "binary_crossentropy", weighted_metrics=weighted)
    return Pair(model)


@pytest.mark.parametrize("case", ["all", "positives", "negatives", "said positive", "half", "none"])
def test_metrics_of_rows_that_weigh_nothing_are_keras_s(judged: Pair, case: str) -> None:
    model, ours = judged.fresh()
    y = (np.arange(ROWS) % 2).astype(np.float32)[:, np.newaxis]
    said = model.predict(X, verbose=0)[:, 0] > 0.5
    zero = {
        "all": np.ones(ROWS, bool),
        "positives": y[:, 0] == 1,
        "negatives": y[:, 0] == 0,
        "said positive": said,
        "half": np.arange(ROWS) < ROWS // 2,
        "none": np.zeros(ROWS, bool),
    }[case]
    weight = np.where(zero, 0, 1).astype(np.float32)
    expected = model.evaluate(X, y, sample_weight=weight, batch_size=BATCH, verbose=0, return_dict=True)
    assert ours.evaluate(X, y, weight) == pytest.approx(expected, rel=1e-4, abs=1e-6)
    listed = model.evaluate(X, y, sample_weight=weight, batch_size=BATCH, verbose=0)
    assert ours.evaluate(X, y, weight, return_dict=False) == pytest.approx(listed, rel=1e-4, abs=1e-6)


@pytest.fixture(scope="module")
def explained() -> Pair:
    keras.utils.set_random_seed(6)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(2, kernel_initializer="zeros")])
    r2 = keras.metrics.R2Score
    metrics = [
        r2(name="r2"),
        r2(class_aggregation="variance_weighted_average", name="by_variance"),
    ]
    model.compile(keras.optimizers.SGD(0.1), "mse", metrics=metrics, weighted_metrics=[r2(name="of_weighted")])
    return Pair(model)


@pytest.mark.parametrize("target", [0.0, 3.0, -0.5, (1.0, 2.0), "one varies", "all vary"], ids=str)
@pytest.mark.parametrize("rows", [ROWS, 16, 1])
def test_the_r2_score_of_targets_that_are_all_alike_is_keras_s(explained: Pair, target: Any, rows: int) -> None:
    y = np.broadcast_to(np.float32(0 if isinstance(target, str) else target), (ROWS, 2)).copy()
    if target in ("one varies", "all vary"):
        y[:, : 1 if target == "one varies" else 2] = X[:, : 1 if target == "one varies" else 2]
    model, ours = explained.fresh()
    expected = model.evaluate(X[:rows], y[:rows], batch_size=BATCH, verbose=0, return_dict=True)
    assert ours.evaluate(X[:rows], y[:rows]) == pytest.approx(expected, rel=1e-4, abs=1e-6, nan_ok=True)
    if rows > 1:
        weight = np.where(np.arange(rows) == 0, 1, 0).astype(np.float32)
        expected = model.evaluate(
            X[:rows], y[:rows], sample_weight=weight, batch_size=BATCH, verbose=0, return_dict=True
        )
        found = ours.evaluate(X[:rows], y[:rows], weight)
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-6, nan_ok=True)


def test_every_batch_size_is_verified_before_a_file_is_written(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    result = edgefl.convert(model, tmp_path / "m.tflite", batch_size=parse_batch_sizes("4, 1"))
    assert (result.manifest.batch_size, result.manifest.further_batch_sizes) == (4, (1,))
    assert set(result.manifest.signatures) >= {"train", "train_1", "evaluate_1", "infer_1"}
    assert result.report["further_batch_sizes"]["1"]["passed"]
    assert edgefl.verify(tmp_path / "m.tflite", against=model).passed


@pytest.mark.parametrize("given", [[8, 8], [], [0, 4], ["8"], 0, True])
def test_batch_sizes_that_make_no_sense_are_refused(given: Any, tmp_path: Path) -> None:
    with pytest.raises(InvalidSettingError, match=r"whole number of at least 1, got .* several different ones"):
        edgefl.convert("model.keras", tmp_path / "m.tflite", batch_size=given)


def test_several_batch_sizes_and_micro_batches_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettingError, match="`micro_batch` too"):
        edgefl.convert("model.keras", tmp_path / "m.tflite", batch_size=[4, 8], micro_batch=2)
    with pytest.raises(InvalidSettingError, match=r"such as 1,8,32, got '8;9'"):
        parse_batch_sizes("8;9")
