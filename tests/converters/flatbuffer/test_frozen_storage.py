"""What a constant in fewer bytes is worth, as laws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefl_converters.flatbuffer.frozen_storage import LEAST_ELEMENTS, store

SHAPES = st.sampled_from([(32, 32), (3, 3, 8, 16), (1, 1024), (2048, 2), (1, 3, 3, 120), (2, 2, 2, 5, 30)])


@st.composite
def constants(draw, largest=3e38):
    """Normal numbers whose size differs along each axis, with zeros, powers of two and an extreme among them."""
    shape = draw(SHAPES)
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    value = generator.normal(size=shape)
    for axis in draw(st.sets(st.integers(0, len(shape) - 1))):
        size = [-1 if each == axis else 1 for each in range(len(shape))]
        value *= 10.0 ** generator.uniform(-6, 6, shape[axis]).reshape(size)
    value *= 10.0 ** draw(st.integers(-42, 3))
    value[generator.random(shape) < 0.1] = 0.0
    value.ravel()[0] = draw(st.sampled_from([0.0, 1.0, -largest, 1e-45, 65504.0]))
    return np.clip(value, -largest, largest).astype(np.float32)


def along(stored):
    return stored.scales.reshape([-1 if axis == stored.axis else 1 for axis in range(stored.values.ndim)])


@given(constants())
def test_int8_is_off_by_half_a_step_at_most_and_keeps_zeros_and_signs(constant):
    stored = store(constant, "int8")
    restored = stored.restored().astype(np.float64)
    assert stored.values.dtype == np.int8
    assert stored.values.min() >= -127
    assert stored.scales.size in (1, constant.shape[stored.axis])
    step = np.broadcast_to(along(stored).astype(np.float64), constant.shape)
    assert np.all(np.abs(restored - constant) <= step * (0.5 + 1e-4))
    assert not restored[constant == 0].any()
    assert np.all(restored * constant >= 0)
    assert np.isfinite(stored.scales).all()
    assert (stored.scales > 0).all()


@given(constants(largest=6e4))
def test_float16_is_off_by_its_rounding(constant):
    stored = store(constant, "float16")
    restored = stored.restored()
    assert stored.values.dtype == np.float16
    # Half a unit of the last place, or of the smallest subnormal number.
    assert np.all(np.abs(restored - constant) <= np.maximum(np.abs(constant) * 2.0**-11, 2.0**-25))
    assert np.array_equal(restored, stored.values.astype(np.float32))


@given(constants(), st.sampled_from(["int8", "float16"]))
def test_it_takes_a_third_of_the_bytes_or_a_half(constant, storage):
    stored = store(constant, storage)
    if stored is not None:
        allowed = 0.5 if storage == "float16" else 0.25 * 1.25
        assert stored.values.nbytes + stored.scales.nbytes <= allowed * constant.nbytes


@pytest.mark.parametrize("axis", [0, 1, 2, 3])
def test_scales_go_along_the_axis_that_differs_most(axis):
    generator = np.random.default_rng(0)
    sizes = [-1 if each == axis else 1 for each in range(4)]
    constant = generator.normal(size=(8, 8, 8, 8)) * np.logspace(-3, 3, 8).reshape(sizes)
    stored = store(constant.astype(np.float32), "int8")
    assert stored.axis == axis
    assert stored.scales.size == 8
    largest = np.abs(constant).max(axis=tuple(each for each in range(4) if each != axis))
    np.testing.assert_allclose(stored.scales, largest / 127, rtol=1e-6)


def test_a_single_scale_is_used_where_those_of_an_axis_would_take_too_much():
    generator = np.random.default_rng(0)
    assert store(generator.normal(size=(2, 2, 2, 5, 30)).astype(np.float32), "int8").scales.size <= 30
    assert store(generator.normal(size=(1, 1024)).astype(np.float32), "int8").scales.size == 1


@pytest.mark.parametrize("storage", ["int8", "float16"])
def test_what_is_small_or_flat_or_not_finite_stays_as_it_is(storage):
    ones = np.ones((64, LEAST_ELEMENTS // 64), np.float32)
    assert store(ones, storage) is not None
    assert store(ones[:, 1:], storage) is None
    assert store(ones.ravel(), storage) is None
    assert store(np.ones((), np.float32), storage) is None
    for value in (np.nan, np.inf, -np.inf):
        broken = ones.copy()
        broken[3, 3] = value
        assert store(broken, storage) is None


def test_what_is_too_large_for_float16_stays_as_it_is():
    constant = np.ones((32, 32), np.float32)
    constant[0, 0] = 7e4
    assert store(constant, "float16") is None
    assert store(constant, "int8") is not None


def test_nothing_but_zeros_is_restored_as_zeros():
    for storage in ("int8", "float16"):
        assert not store(np.zeros((32, 32), np.float32), storage).restored().any()
