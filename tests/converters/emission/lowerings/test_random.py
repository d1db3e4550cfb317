"""Random numbers from a seed: rate, spread, independence, and the same bits everywhere."""

from __future__ import annotations

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from edgefl.errors import UnsupportedModelError
from edgefl_converters.building.building import build
from edgefl_converters.emission.lowerings.random import normal, uniform

SHAPE = (64, 50)


@pytest.fixture(scope="module")
def draw():
    @tf.function(autograph=False, input_signature=[tf.TensorSpec([1], tf.int32), tf.TensorSpec([], tf.int32)])
    def drawn(seed, stream):
        # The stream is a Python number in a graph; here a case for each keeps the test short.
        return tf.switch_case(stream, [lambda number=number: uniform(SHAPE, number, seed) for number in range(4)])

    return lambda seed, stream=1: drawn(np.asarray([seed], np.int32), stream).numpy()


def test_numbers_are_uniform_in_the_half_open_unit_interval(draw):
    numbers = np.concatenate([draw(seed).ravel() for seed in range(200)])
    assert numbers.min() >= 0.0
    assert numbers.max() < 1.0
    counts = np.histogram(numbers, bins=64, range=(0, 1))[0]
    expected = numbers.size / 64
    # Chi-squared with 63 degrees of freedom has mean 63 and standard deviation 11.2.
    assert ((counts - expected) ** 2 / expected).sum() < 63 + 5 * 11.2
    assert numbers.mean() == pytest.approx(0.5, abs=5 * 0.2887 / numbers.size**0.5)
    assert numbers.var() == pytest.approx(1 / 12, rel=0.01)


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.3, 0.5, 0.9])
def test_dropping_below_a_rate_drops_at_that_rate(draw, rate):
    dropped = np.mean([(draw(seed) < rate).mean() for seed in range(1000, 1100)])
    deviation = (rate * (1 - rate) / (100 * np.prod(SHAPE))) ** 0.5
    assert dropped == pytest.approx(rate, abs=5 * deviation)


def test_the_same_seed_draws_the_same_numbers(draw):
    assert np.array_equal(draw(7), draw(7))


@pytest.mark.parametrize("other", [(8, 1), (7, 2), (7 + 2**16, 1), (-7, 1)], ids=str)
def test_neighbouring_seeds_and_ops_draw_unrelated_numbers(draw, other):
    first, second = draw(7).ravel() - 0.5, draw(*other).ravel() - 0.5
    for lag in range(-3, 4):
        correlation = np.corrcoef(first, np.roll(second, lag))[0, 1]
        assert abs(correlation) < 5 / first.size**0.5


def test_elements_do_not_feel_their_neighbours_in_any_direction(draw):
    numbers = np.stack([draw(seed) for seed in range(100)]) - 0.5
    for axis, lag in itertools.product(range(3), (1, 2, 5)):
        correlation = (numbers * np.roll(numbers, lag, axis)).mean() * 12
        assert abs(correlation) < 5 / numbers.size**0.5, (axis, lag)


def test_one_element_is_uniform_over_seeds(draw):
    numbers = np.stack([draw(seed)[::9, ::7] for seed in range(400)])
    assert numbers.mean(0) == pytest.approx(0.5, abs=5.5 * 0.2887 / 400**0.5)


def test_tensorflow_and_both_runtimes_draw_the_same_bits(kernel_parity):
    for shape in [(5,), (3, 4), (2, 3, 5, 7), (1, 1)]:
        for stream in (1, 2):

            def drawn(seed, shape=shape, stream=stream):
                return uniform(shape, stream, seed)

            kernel_parity.add(f"{shape} {stream}", drawn, np.asarray([123456789], np.int32))
            kernel_parity.add(f"{shape} {stream} negative", drawn, np.asarray([-5], np.int32))
    assert set(kernel_parity.errors().values()) == {0.0}


def test_normal_numbers_have_the_moments_of_a_normal_distribution_everywhere(kernel_parity):
    def drawn(seed):
        return normal((200, 500), 3, seed)

    numbers = np.asarray(drawn(tf.constant([42])), np.float64).ravel()
    deviation = numbers.size**-0.5
    assert numbers.mean() == pytest.approx(0, abs=5 * deviation)
    assert (numbers**2).mean() == pytest.approx(1, abs=5 * 2**0.5 * deviation)
    assert (numbers**3).mean() == pytest.approx(0, abs=5 * 15**0.5 * deviation)
    assert (numbers**4).mean() == pytest.approx(3, abs=5 * 96**0.5 * deviation)
    kernel_parity.add("normal", drawn, np.asarray([42], np.int32))
    kernel_parity.check()


@pytest.mark.parametrize("draw_part", [uniform, normal])
@pytest.mark.parametrize("shape", [(6,), (6, 1), (6, 50), (6, 2, 3), (2, 4001), (12, 1, 5)])
def test_the_rows_of_a_batch_can_be_drawn_in_parts(draw_part, shape):
    seed = tf.constant([11], tf.int32)
    whole = draw_part(shape, 3, seed).numpy()
    for rows in (1, 2):
        part, size = (rows, *shape[1:]), rows * int(np.prod(shape[1:]))
        parts = [draw_part(part, 3, seed, shape, size * index) for index in range(shape[0] // rows)]
        # The bits are the same; the logarithm of a number depends on where it lies in a vector of the processor.
        np.testing.assert_allclose(np.concatenate(parts), whole, rtol=0, atol=1e-6 if draw_part is normal else 0)


class Gamma(keras.layers.Layer):
    """Draws as no file can."""

    def __init__(self):
        super().__init__()
        self.seeds = keras.random.SeedGenerator(1)

    def call(self, x):
        return x * keras.random.gamma((3,), 2.0, seed=self.seeds)


def test_random_numbers_of_other_kinds_are_refused_and_not_kept_as_they_were_drawn_once():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3), Gamma(), keras.layers.Dense(2)])
    model.compile("sgd", "mse")
    with pytest.raises(UnsupportedModelError, match="StatelessRandomGammaV3"):
        build(model, batch_size=4)
