"""What a round of `edgefl.learning` computes, beside Keras by hand and beside `edgefl.simulate`."""

from __future__ import annotations

import contextlib
import pickle
from collections import namedtuple

import keras
import numpy as np
import pytest
import tensorflow as tf

import edgefl
from clients_of_keras import BATCH, by_hand, dataset, model_fn_of, plain, rich, rows, same, trainer
from edgefl import learning
from edgefl.errors import DataError, InvalidSettingError, RunError
from edgefl.hashing import weights_hash

UNLIKE = {
    "batches that differ": lambda: dataset(21, 1).batch(BATCH).repeat(2),
    "epochs in one batch": lambda: dataset(13, 2).repeat(3).batch(BATCH),
    "few": lambda: dataset(3, 3).batch(BATCH),
    "none": lambda: dataset(8, 4).take(0).batch(BATCH),
}


def averaged(found, weights):
    """What clients end with, each counting for so much."""
    return [np.average(arrays, axis=0, weights=weights) for arrays in zip(*found, strict=True)]


def test_two_rounds_are_what_keras_computes_by_hand_batch_after_batch():
    data = [make() for make in UNLIKE.values()]
    model, state = plain(), trainer().initialize()
    for _ in range(2):
        results = [by_hand(model, state.weights, each.as_numpy_iterator()) for each in data]
        seen = [count for _, count, _ in results]
        assert seen == [42, 39, 3, 0]
        expected = averaged([found for found, _, _ in results], seen)
        state, metrics = trainer().next(state, data)
        for got, wanted in zip(state.weights, expected, strict=True):
            np.testing.assert_allclose(got, wanted, atol=2e-5)
        assert metrics.num_examples == sum(seen)
        assert metrics.loss == pytest.approx(sum(losses for _, _, losses in results) / sum(seen), rel=1e-4)
        assert 0 < metrics["accuracy"] < 1
    assert state.round == 2


@pytest.mark.slow
def test_where_all_count_the_same_a_client_without_rows_is_one_that_changed_nothing():
    process = learning.build_unweighted_fed_avg(model_fn_of(plain))
    data = [make() for make in UNLIKE.values()]
    first = process.initialize()
    results = [by_hand(plain(), first.weights, each.as_numpy_iterator())[0] for each in data]
    state, _ = process.next(first, data)
    for got, wanted in zip(state.weights, averaged(results, None), strict=True):
        np.testing.assert_allclose(got, wanted, atol=2e-5)


def test_a_client_with_far_more_rows_than_the_others_counts_for_all_of_them():
    data, sizes = [dataset(count, count).batch(BATCH) for count in (2, 3, 64)], (2, 3, 64)
    first = trainer().initialize()
    alone = [trainer().next(first, [each]).state.weights for each in data]
    together = trainer().next(first, data).state.weights
    for got, wanted in zip(together, averaged(alone, sizes), strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-6)


@pytest.mark.parametrize("make", [plain, rich])
def test_with_arrays_it_ends_with_the_bits_of_a_simulation_of_the_same_devices(make, tmp_path):
    clients = [rows(19 + 8 * number, number) for number in range(3)]
    process = learning.build_weighted_fed_avg(model_fn_of(make), epochs=2, seed=7, client_learning_rate=0.1)
    state = process.initialize()
    losses = []
    with pytest.warns(UserWarning, match="mixes the rows") if make is rich else contextlib.nullcontext():
        for _ in range(3):
            state, metrics = process.next(state, clients)
            losses.append(metrics.loss)
    x, y = (np.concatenate(arrays) for arrays in zip(*clients, strict=True))
    owner = np.repeat([f"device-{number:06d}" for number in range(3)], [len(x) for x, _ in clients])
    history = edgefl.simulate(
        make(),
        {"x": x, "y": y, "id": owner},
        **{"rounds": 3, "cohort": 3, "partition": "natural-id", "held_out": 0, "evaluate_every": 0, "workers": 1},
        **{"seed": 7, "epochs": 2, "learning_rate": 0.1, "batch_size": BATCH, "runtime": "ai-edge-litert"},
    )
    assert weights_hash(state.strategy.weights) == weights_hash(history.weights)
    assert losses == [row["training"]["loss"] for row in history.rounds]


def test_nothing_that_it_is_given_changes_and_the_same_arguments_give_the_same_bits():
    data, process = [UNLIKE["batches that differ"](), rows(19, 5)], trainer(rich)
    first = process.initialize()
    before = pickle.dumps(first)
    second, metrics = process.next(first, data)
    third, _ = process.next(second, data)
    assert pickle.dumps(first) == before
    again = process.next(first, data)
    assert same(again.state, second)
    assert again.metrics == metrics
    assert same(process.next(second, data).state, third)
    assert not same(second, third)
    assert same(process.initialize(), first)
    with pytest.raises(ValueError, match="read-only"):
        second.strategy.weights[0] = 0


def test_what_clients_have_may_take_any_form_that_means_the_same():
    x, y = rows(20, 6)
    pairs = [(x[start : start + BATCH], y[start : start + BATCH]) for start in range(0, 20, BATCH)]
    Batch = namedtuple("Batch", ["y", "x"])
    forms = [
        tf.data.Dataset.from_tensor_slices((x, y)).batch(BATCH),
        tf.data.Dataset.from_tensor_slices({"x": x.astype(np.float64), "y": y.astype(np.int64)}).batch(BATCH),
        tf.data.Dataset.from_tensor_slices((x, y[:, np.newaxis].astype(np.uint8))).batch(BATCH),
        pairs,
        [(tf.constant(x), tf.constant(y)) for x, y in pairs],
        [{"y": y, "x": x} for x, y in pairs],
        [Batch(y, x) for x, y in pairs],
        [((x,), (y,)) for x, y in pairs],
        [(x, y, np.ones(len(x))) for x, y in pairs],
    ]
    first = trainer().initialize()
    states = [trainer().next(first, [form]).state for form in forms]
    assert all(same(state, states[0]) for state in states[1:])
    # Arrays are no batches: they are shuffled.
    shuffled = trainer().next(first, [(x, y)]).state
    assert not same(shuffled, states[0])
    assert same(trainer().next(first, [{"x": x, "y": y}]).state, shuffled)


def test_batches_may_be_larger_than_the_sample_and_weights_count():
    data = dataset(40, 7).batch(16)
    first = trainer().initialize()
    expected, _, _ = by_hand(plain(), first.weights, data.as_numpy_iterator())
    for got, wanted in zip(trainer().next(first, [data]).state.weights, expected, strict=True):
        np.testing.assert_allclose(got, wanted, atol=2e-5)
    x, y = rows(16, 8)
    weights = np.r_[np.ones(8), np.zeros(8)].astype(np.float32)
    halves = (
        trainer().next(first, [[(x[:8], y[:8])]]).state,
        trainer().next(first, [[(x[:8], y[:8], weights[:8])]]).state,
    )
    assert same(*halves)
    half_counts = trainer().next(first, [[(x, y, weights)]]).state
    assert not same(half_counts, trainer().next(first, [[(x, y)]]).state)


@pytest.mark.slow
def test_the_optimizers_of_clients_and_server_can_be_chosen():
    data = [dataset(21, 1).batch(BATCH)]
    first = trainer().initialize()
    fixed = learning.build_federated_averaging_process(
        model_fn_of(plain), lambda: keras.optimizers.Adam(0.05), lambda: keras.optimizers.SGD(1.0)
    )
    expected, _, _ = by_hand(plain(keras.optimizers.Adam(0.05)), first.weights, data[0].as_numpy_iterator())
    whole = fixed.next(fixed.initialize(), data).state
    for got, wanted in zip(whole.weights, expected, strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-4)
    for given in (learning.Sgd(0.5), lambda: learning.Sgd(0.5), keras.optimizers.SGD(0.5)):
        halving = learning.build_weighted_fed_avg(model_fn_of(plain), lambda: keras.optimizers.Adam(0.05), given)
        half = halving.next(first, data).state
        for start, middle, end in zip(first.weights, half.weights, whole.weights, strict=True):
            np.testing.assert_allclose(middle, (start + end) / 2, atol=1e-6)


class Momentum:
    """A server optimizer from outside, with a memory."""

    def init(self, size):
        return {"velocity": np.zeros(size, np.float32)}

    def step(self, average, slots):
        velocity = 0.5 * slots["velocity"] + average.mean()
        return velocity, {"velocity": velocity.astype(np.float32)}


def test_a_server_optimizer_from_outside_keeps_what_it_remembers_in_the_state():
    process = learning.build_weighted_fed_avg(model_fn_of(plain), server_optimizer_fn=Momentum)
    data = [dataset(21, 1).batch(BATCH)]
    first = process.initialize()
    second, _ = process.next(first, data)
    third, _ = process.next(second, data)
    plain_third, _ = trainer().next(second_as_plain(second), data)
    moved = second.strategy.weights - first.strategy.weights
    ahead = third.strategy.weights - plain_third.strategy.weights
    np.testing.assert_allclose(ahead, 0.5 * moved, atol=1e-6)
    kept = learning.ServerState.from_bytes(second.to_bytes())
    assert same(process.next(kept, data).state, third)
    with pytest.raises(DataError, match="another server optimizer"):
        trainer().next(second, data)


def second_as_plain(state):
    process = trainer()
    return process.set_model_weights(process.initialize(), state.weights)


def test_a_client_that_diverges_is_left_out_and_when_all_do_it_is_said():
    process = learning.build_weighted_fed_avg(model_fn_of(regression))
    x, y = rows(16, 1)
    calm, wild = [(x[:8], y[:8, None])], [(1e20 * x[:8], y[:8, None]), (1e20 * x[8:], y[8:, None])]
    first = process.initialize()
    alone, _ = process.next(first, [calm])
    with pytest.warns(UserWarning, match="diverged for 1 of 2 clients"):
        beside, metrics = process.next(first, [calm, wild])
    assert same(alone, beside)
    assert metrics.num_examples == 8
    with pytest.raises(RunError, match="diverged for all"):
        process.next(first, [wild])


def regression():
    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    return model


def test_without_any_rows_nothing_changes_and_there_is_no_loss():
    first = trainer().initialize()
    state, metrics = trainer().next(first, [UNLIKE["none"](), []])
    assert state.round == 1
    assert weights_hash(state.strategy.weights) == weights_hash(first.strategy.weights)
    assert np.isnan(metrics.loss)
    assert metrics.num_examples == 0


X, Y = rows(8, 1)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (dataset(8, 1).batch(8), "expects a list with the data of each client, got _BatchDataset"),
        ([], "at least one client"),
        ([dataset(8, 1).batch(8), dataset(8, 1)], "Client 1: .*not batched.*batch\\(20\\)"),
        ([dataset(8, 1).batch(8).repeat()], "Client 0: .*no end.*repeat\\(count\\)"),
        ([iter([(X, Y)])], "read once"),
        ([X], "is a ndarray"),
        ([[X, Y]], "expects batches \\(x, y\\), got a ndarray"),
        ([(X, Y, Y, Y)], "tuple of 4"),
        ([[{"pixels": X, "label": Y}]], "with x and y, got 'pixels', 'label'"),
        ([(X, Y[:5])], "arrays of 5, 8 rows"),
        ([[(X, Y), (X[:, :4], Y)]], "unlike each other"),
        ([[((X, X), Y)]], "has 1 inputs"),
        ([(X[:, :4], Y)], "Client 0: .*expects shape \\(rows, 6\\), got \\(8, 4\\)"),
        ([(X, Y + 9)], "Client 0: .*from 0 to 2"),
        ([(X * np.nan, Y)], "Client 0: .*finite"),
        ([(X.astype(str), Y)], "Client 0: .*expects numbers"),
    ],
)
def test_data_that_is_none_is_refused_with_the_client_and_what_to_do(data, said):
    first = trainer().initialize()
    with pytest.raises(DataError, match=said):
        trainer().next(first, data)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"epochs": 0}, "epochs expects"),
        ({"client_learning_rate": -1.0}, "client_learning_rate expects"),
        ({"client_optimizer_fn": keras.optimizers.SGD(0.1)}, "expects a function that returns"),
        ({"server_optimizer_fn": lambda: keras.optimizers.Adam()}, "no optimizer like Adam; it has plain SGD"),
        ({"server_optimizer_fn": keras.optimizers.SGD(1.0, momentum=0.9)}, "SGD with momentum 0.9"),
        ({"server_optimizer_fn": 3}, "no optimizer like int"),
        ({"server_optimizer_fn": keras.optimizers.SGD(0.0)}, "above 0, got 0"),
    ],
)
def test_settings_that_are_none_are_refused(settings, said):
    with pytest.raises(InvalidSettingError, match=said):
        learning.build_weighted_fed_avg(model_fn_of(plain), **settings)


def test_a_state_of_another_model_is_refused():
    with pytest.raises(DataError, match="another model"):
        trainer().next(trainer(rich).initialize(), [(X, Y)])
    with pytest.raises(DataError, match="Begin with initialize"):
        trainer().next(None, [(X, Y)])
