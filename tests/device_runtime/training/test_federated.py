"""What a model file adds for federated algorithms, on every runtime."""

from __future__ import annotations

import numpy as np
import pytest

from edgefl.errors import DataError, InvalidSettingError
from edgefl_device_runtime.training import TrainableModel
from federated_numpy import RATE, SIZE, LocalData, fedprox, gradient


def local_data(rows: int = 35, seed: int = 3, epochs: int = 2) -> LocalData:
    random = np.random.default_rng(seed)
    x = random.normal(size=(rows, 20)).astype(np.float32)
    return LocalData(x, np.argmax(x[:, :5], axis=1).astype(np.int32), seed, epochs)


@pytest.fixture
def model(federated_file, runtime):
    return TrainableModel(federated_file, runtime=runtime)


def fit(model, data, **more):
    return model.fit(data.x, data.y, epochs=data.epochs, seed=data.seed, **more)


@pytest.mark.parametrize("mu", [0.3, 3.0])
def test_the_proximal_term_pulls_to_the_reference(model, mu):
    data, received = local_data(), model.weights
    model.set_reference()
    fit(model, data, mu=mu)
    expected = fedprox(received.astype(np.float64), data, mu) - received
    np.testing.assert_allclose(model.delta(received), expected, rtol=0, atol=2e-6)
    assert np.abs(expected).max() > 0.01


def test_the_reference_is_what_the_weights_were_when_it_was_set_and_not_at_the_start_of_fit(model):
    first, second = local_data(seed=1), local_data(seed=2)
    received = model.weights.astype(np.float64)
    model.set_reference()
    fit(model, first, mu=0.5)
    between = model.weights.astype(np.float64)
    fit(model, second, mu=0.5)
    # The second fit goes on from `between` and is pulled to `received`.
    w = between
    for x, y in second.batches():
        w = w - RATE * (gradient(w, x, y) + 0.5 * (w - received))
    np.testing.assert_allclose(model.weights, w, rtol=0, atol=2e-6)


def test_a_correction_is_added_to_the_gradient_of_every_step_until_another_is_set(model):
    data, received = local_data(), model.weights
    correction = np.random.default_rng(4).normal(size=SIZE).astype(np.float32)
    model.set_correction(correction)
    fit(model, data)
    w = received.astype(np.float64)
    for x, y in data.batches():
        w = w - RATE * (gradient(w, x, y) + correction)
    np.testing.assert_allclose(model.weights, w, rtol=0, atol=5e-6)
    model.weights = received
    model.set_correction(None)
    fit(model, data)
    np.testing.assert_allclose(model.weights, fedprox(received.astype(np.float64), data, 0), rtol=0, atol=2e-6)


def test_without_mu_and_correction_the_training_is_to_the_bit_that_of_a_plain_file(model, plain_sgd_file, runtime):
    plain = TrainableModel(plain_sgd_file, runtime=runtime)
    np.testing.assert_array_equal(plain.weights, model.weights)
    histories = [fit(each, local_data()).history for each in (plain, model)]
    np.testing.assert_array_equal(plain.weights, model.weights)
    assert histories[0] == histories[1]


def test_the_gradient_is_that_of_all_rows_and_changes_nothing(model):
    data = local_data(rows=35)
    before = model.get_state()
    found = model.gradient(data.x, data.y)
    expected = gradient(model.weights.astype(np.float64), data.x.astype(np.float64), data.y)
    assert found.vector.dtype == np.float32
    np.testing.assert_allclose(found.vector, expected, rtol=0, atol=1e-7)
    assert found.num_examples == 35
    assert found.metrics == pytest.approx(model.evaluate(data.x, data.y), rel=1e-5)
    for name, value in model.get_state().items():
        np.testing.assert_array_equal(value, before[name])


def test_the_gradient_weighs_rows_as_training_does(model):
    data = local_data(rows=11)
    weight = np.linspace(0, 2, 11).astype(np.float32)
    found = model.gradient(data.x, data.y, weight)
    each = [gradient(model.weights.astype(np.float64), data.x[i : i + 1], data.y[i : i + 1]) for i in range(11)]
    expected = (weight[:, None] * np.array(each)).mean(axis=0)
    np.testing.assert_allclose(found.vector, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("mu", [-0.1, float("nan"), float("inf"), True, "0.1"])
def test_a_mu_that_is_no_factor_is_refused(model, mu):
    model.set_reference()
    with pytest.raises(InvalidSettingError, match="mu must be a finite number of at least 0"):
        fit(model, local_data(), mu=mu)


def test_mu_without_a_reference_is_refused(model):
    with pytest.raises(InvalidSettingError, match=r"no reference yet.*set_reference"):
        fit(model, local_data(), mu=0.1)


def test_a_plain_file_refuses_with_the_setting_that_is_missing(plain_sgd_file, runtime):
    model = TrainableModel(plain_sgd_file, runtime=runtime)
    data = local_data()
    with pytest.raises(InvalidSettingError, match="`algorithms='fedprox'`"):
        fit(model, data, mu=0.1)
    with pytest.raises(InvalidSettingError, match="`algorithms='fedprox'`"):
        model.set_reference()
    with pytest.raises(InvalidSettingError, match="`algorithms='scaffold'` or `algorithms='feddyn'`"):
        model.set_correction(None)
    with pytest.raises(InvalidSettingError, match="`algorithms='fedsgd'`"):
        model.gradient(data.x, data.y)
    fit(model, data, mu=0)  # is what the file does anyway


@pytest.mark.parametrize("vector", [np.zeros(3, np.float32), np.zeros(SIZE, np.int64), np.full(SIZE, np.nan)])
def test_a_correction_that_does_not_fit_is_refused(model, vector):
    with pytest.raises(DataError):
        model.set_correction(vector)


def test_local_parameters_are_neither_in_the_weights_nor_in_the_delta(personal_file, runtime):
    model = TrainableModel(personal_file, runtime=runtime)
    data, received = local_data(), model.weights
    before = model.local_parameters
    assert set(before) == {"head/kernel", "head/bias"}
    assert received.size == model.manifest.layout.size == 20 * 16 + 16
    fit(model, data)
    after = model.local_parameters
    assert model.delta(received).size == received.size
    assert all(np.abs(after[name] - before[name]).max() > 0.01 for name in before)
    model.weights = received
    for name in after:  # assigning the shared ones leaves them alone
        np.testing.assert_array_equal(model.local_parameters[name], after[name])
    model.local_parameters = before
    np.testing.assert_array_equal(model.weights, received)
    np.testing.assert_array_equal(model.local_parameters["head/kernel"], before["head/kernel"])
    with pytest.raises(DataError, match="missing: head/bias, unknown: body/bias"):
        model.local_parameters = {"head/kernel": before["head/kernel"], "body/bias": np.zeros(16)}


@pytest.mark.filterwarnings("ignore:The last")
def test_the_gradient_of_a_model_with_random_numbers_and_mixed_rows_is_a_function_of_the_seed(noisy_file, runtime):
    model = TrainableModel(noisy_file, runtime=runtime)
    data, before = local_data(rows=19), model.weights
    first, again, other = (model.gradient(data.x, data.y, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.vector, again.vector)
    assert np.abs(first.vector - other.vector).max() > 1e-3
    assert first.vector.size == model.manifest.layout.weight_size < model.manifest.layout.size
    assert first.num_examples == 19  # two batches are seen; which, and how many, is nothing that a weight hangs on
    assert first.states["rows"] == 16
    assert model.gradient(data.x[:3], data.y[:3]).num_examples == 3
    np.testing.assert_array_equal(model.weights, before)


def test_a_normalisation_can_stay_on_the_device_with_its_moving_averages(normalised_file, runtime):
    model = TrainableModel(normalised_file, runtime=runtime)
    data, before = local_data(rows=32), model.local_parameters
    assert set(before) == {f"norm/{name}" for name in ("gamma", "beta", "moving_mean", "moving_variance")}
    assert model.manifest.layout.statistic_size == 0
    fit(model, data)
    assert all(np.abs(model.local_parameters[name] - before[name]).max() > 1e-4 for name in before)
