from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgefl_server.aggregation import ModelLimits
from edgefl_server.aggregation.statistics import LARGEST_VALUE, LARGEST_VARIANCE, Range, absolute_range, range_of_round

MEANS, SIZE = 2, 4
LIMITS = ModelLimits(variances=((MEANS, SIZE),))
BASE = np.array([0.0, 5.0, 1.0, 9.0], np.float32)
anything = hnp.arrays(np.float32, SIZE, elements=st.floats(-(2.0**99), 2.0**99, width=32))


def ranges_of(base: np.ndarray, changes: np.ndarray, at_once: int = SIZE) -> Range:
    if len(changes) < 2:
        return absolute_range(base, LIMITS)
    parts = [slice(start, start + at_once) for start in range(0, base.size, at_once)]
    return range_of_round(base, [(part, changes[:, part]) for part in parts], LIMITS)


def honest_changes(devices: int, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    values = np.abs(random.normal(BASE, 0.5, (devices, SIZE))).astype(np.float32)
    return values - BASE


@given(st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_what_honest_devices_send_is_left_as_it_is(devices: int, seed: int) -> None:
    changes = honest_changes(devices, seed)
    ranges = ranges_of(BASE, changes)
    for change in changes:
        kept, outside = ranges.bounded(change)
        assert kept is change
        assert outside == 0
    merged = (BASE + changes.mean(axis=0)).astype(np.float32)
    assert ranges.settled(merged) is merged


@given(st.integers(2, 9), st.lists(anything, min_size=1, max_size=4), st.integers(0, 99))
def test_fewer_liars_than_honest_devices_move_a_statistic_by_a_bounded_distance(
    honest: int, lies: list[np.ndarray], seed: int
) -> None:
    changes = np.array([*honest_changes(honest, seed), *lies[: honest - 1]])
    ranges = ranges_of(BASE, changes)
    values = np.array([BASE.astype(np.float64) + ranges.bounded(change)[0] for change in changes])
    # Honest values are within 4 of the base here.
    assert np.all(np.abs(values - BASE) <= 100 * (1 + BASE + 4) + 8)
    assert np.all(values[:, MEANS:] >= 0)


@given(hnp.arrays(np.float32, (3, SIZE), elements=st.floats(-(2.0**99), 2.0**99, width=32)), st.randoms())
def test_the_range_does_not_depend_on_the_order_of_the_devices(changes: np.ndarray, random) -> None:
    order = list(range(3))
    random.shuffle(order)
    one, other = ranges_of(BASE, changes), ranges_of(BASE, changes[order])
    assert one.low.tobytes() == other.low.tobytes()
    assert one.high.tobytes() == other.high.tobytes()


@settings(max_examples=50)
@given(anything, st.lists(anything, min_size=1, max_size=3), st.integers(1, 2**53))
def test_whatever_is_sent_a_batch_normalisation_with_the_result_stays_finite(base, changes, weight: int) -> None:
    ranges = ranges_of(base, np.array(changes))
    kept = np.array([ranges.bounded(change)[0] for change in changes], np.float64)
    total = np.zeros(SIZE)
    for index, change in enumerate(kept):
        total += change * (weight if index == 0 else 1)
    merged = ranges.settled((base + total / (weight + len(kept) - 1)).astype(np.float32))
    mean, variance = merged[:MEANS], merged[MEANS:]
    assert np.all(variance >= 0)
    inputs = np.array([-3.0, 200.0], np.float32)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        assert np.isfinite((inputs - mean) / np.sqrt(variance + np.float32(1e-3))).all()
        assert np.isfinite(np.square(inputs - mean)).all()


def test_a_device_alone_in_its_round_makes_no_variance_negative_and_nothing_infinite() -> None:
    ranges = absolute_range(BASE, LIMITS)
    change, outside = ranges.bounded(np.array([1e30, -1e30, -1e30, 1e31], np.float32))
    np.testing.assert_allclose(BASE + change, [LARGEST_VALUE, -LARGEST_VALUE, 0, LARGEST_VARIANCE], rtol=1e-6)
    assert outside == 4


@pytest.mark.parametrize("devices", [2, 3])
def test_an_even_number_of_values_takes_the_middle_one_nearer_to_what_it_was(devices: int) -> None:
    changes = np.zeros((devices, SIZE), np.float32)
    changes[0] = 1e9
    changes[1:] = 1.0
    ranges = ranges_of(BASE, changes)
    np.testing.assert_allclose(ranges.high, BASE + 1 + 100 * (2 + BASE))


def test_statistics_of_many_devices_are_sorted_in_parts_to_the_same_ranges() -> None:
    changes = honest_changes(5, 3)
    whole = ranges_of(BASE, changes)
    parts = ranges_of(BASE, changes, at_once=1)
    assert parts.low.tobytes() == whole.low.tobytes()
    assert parts.high.tobytes() == whole.high.tobytes()


def test_a_damaged_base_is_brought_back_into_the_range_and_not_made_worse() -> None:
    base = np.array([0.0, 5.0, -4.0, 9.0], np.float32)
    changes = np.zeros((3, SIZE), np.float32)
    ranges = ranges_of(base, changes)
    kept, outside = ranges.bounded(changes[0])
    assert outside == 1
    np.testing.assert_array_equal(base + kept, [0.0, 5.0, 0.0, 9.0])


def test_a_variance_that_fell_to_nothing_and_was_rounded_by_a_codec_is_no_lie() -> None:
    base = np.array([0.0, 0.3], np.float32)
    trained = np.array([0.0, 1e-9], np.float32)
    change = (trained - base).astype(np.float16).astype(np.float32)
    assert (base + change)[1] < 0
    bounded, outside = absolute_range(base, ModelLimits(variances=((1, 2),))).bounded(change)
    assert outside == 0
    assert (base + bounded)[1] >= 0
    assert absolute_range(base, ModelLimits(variances=((1, 2),))).bounded(change - np.float32(1))[1] == 1
