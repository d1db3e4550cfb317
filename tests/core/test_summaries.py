"""What devices say of their data adds up to what the pooled data says."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefl.errors import CodecError
from edgefl.summaries import MOST_FEATURES, MOST_VALUES, ArraySummary, Summary, features_of


def summary_of(array: np.ndarray, whole: bool = False, pieces: int = 1) -> ArraySummary:
    return ArraySummary.of(np.array_split(array, pieces), array.shape[1:], whole=whole)


def together(arrays: list[np.ndarray], whole: bool = False) -> ArraySummary:
    total, *others = (summary_of(array, whole) for array in arrays)
    for each in others:
        total = total.merged(each)
    return total


def test_moments_of_many_devices_are_those_of_the_pooled_data() -> None:
    random = np.random.default_rng(0)
    parts = [random.normal(3 * i, 1 + i, (int(random.integers(1, 90)), 2, 3)).astype(np.float32) for i in range(12)]
    pooled = np.concatenate(parts).reshape(-1, 6).astype(np.float64)
    found = together(parts)
    assert found.count == len(pooled)
    np.testing.assert_allclose(found.sums, pooled.sum(0), rtol=1e-13)
    np.testing.assert_allclose(found.mean, pooled.mean(0), rtol=1e-13)
    np.testing.assert_allclose(found.variance, pooled.var(0), rtol=1e-13)
    np.testing.assert_array_equal(found.low, pooled.min(0))
    np.testing.assert_array_equal(found.high, pooled.max(0))


def test_a_variance_far_from_zero_keeps_its_digits() -> None:
    """Sums of squares would leave nothing of it: 1e9 ** 2 has no digit left for 1."""
    random = np.random.default_rng(1)
    parts = [1e9 + random.normal(size=(50, 1)) for _ in range(8)]
    pooled = np.concatenate(parts)
    assert together(parts).variance[0] == pytest.approx(pooled.var(), rel=1e-6)


def test_rows_of_many_numbers_are_looked_at_by_their_last_axis() -> None:
    assert features_of((28, 28, 1)) == 784
    assert features_of((64, 64, 3)) == 3
    assert features_of((4, MOST_FEATURES + 1)) == 1
    images = np.random.default_rng(2).normal(size=(5, 40, 40, 3))
    found = summary_of(images)
    np.testing.assert_allclose(found.mean, images.mean((0, 1, 2)), rtol=1e-13)
    np.testing.assert_allclose(found.variance, images.var((0, 1, 2)), rtol=1e-13)


@given(
    st.lists(st.lists(st.floats(-1e12, 1e12, allow_subnormal=False), min_size=1, max_size=30), min_size=1, max_size=6),
    st.randoms(use_true_random=False),
)
def test_quantiles_are_a_hundredth_of_themselves_away_at_most_whatever_the_order(parts, random) -> None:
    arrays = [np.array(part)[:, np.newaxis] for part in parts]
    found = together(arrays)
    shuffled = list(arrays)
    random.shuffle(shuffled)
    assert together(shuffled).sketch == found.sketch
    pooled = np.sort(np.concatenate(arrays).ravel())
    shares = (0.0, 0.1, 0.5, 0.99, 1.0)
    (quantiles,) = found.quantiles(shares)
    for share, value in zip(shares, quantiles, strict=True):
        wanted = pooled[math.floor(share * (len(pooled) - 1))]
        assert value == pytest.approx(wanted, rel=0.0101, abs=1e-9)


def test_whole_numbers_are_counted_by_value_as_long_as_there_are_not_too_many() -> None:
    labels = [np.array([0, 1, 1, 7]), np.array([1, 9])]
    assert together(labels, whole=True).values == {0: 1, 1: 3, 7: 1, 9: 1}
    many = np.arange(MOST_VALUES)
    assert len(summary_of(many, whole=True).values) == MOST_VALUES
    assert together([many, np.array([MOST_VALUES])], whole=True).values is None
    assert summary_of(np.array([0.5, 1.0])).values is None


def test_pieces_change_nothing_but_the_last_digits() -> None:
    array = np.random.default_rng(3).normal(size=(1000, 4)).astype(np.float32)
    one, many = summary_of(array), summary_of(array, pieces=37)
    np.testing.assert_allclose(many.variance, one.variance, rtol=1e-13)
    assert many.sketch == one.sketch


def test_a_summary_is_written_and_read_to_the_last_bit() -> None:
    random = np.random.default_rng(4)
    arrays = {"x": summary_of(random.normal(size=(9, 3))), "y": summary_of(random.integers(0, 4, 9), whole=True)}
    summary = Summary(9, arrays)
    again = Summary.decode(summary.encode())
    assert again.encode() == summary.encode()
    np.testing.assert_array_equal(again.arrays["x"].sums, arrays["x"].sums)
    assert again.arrays["y"].values == arrays["y"].values


def test_summaries_of_other_arrays_are_not_added() -> None:
    x, y = summary_of(np.ones((2, 3))), summary_of(np.ones((2, 4)))
    with pytest.raises(ValueError, match="rows of shape"):
        x.merged(y)
    with pytest.raises(ValueError, match="the arrays y with x"):
        Summary(2, {"x": x}).merged(Summary(2, {"y": y}))


def damaged(change) -> bytes:
    document = json.loads(Summary(4, {"x": summary_of(np.array([[1.0], [2.0], [2.0], [5.0]]))}).encode())
    change(document["arrays"]["x"], document)
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    "change",
    [
        lambda x, all: x.update(count=-1),
        lambda x, all: x.update(count=3),
        lambda x, all: x.update(count=True),
        lambda x, all: x.update(sums=[1.0, 2.0]),
        lambda x, all: x.update(sums=["1"]) or x.update(sums=[None]),
        lambda x, all: x.update(sums=[1e300]),
        lambda x, all: x.update(sums=[1000.0]),
        lambda x, all: x.update(sums=[float("nan")]),
        lambda x, all: x.update(squares=[-1.0]),
        lambda x, all: x.update(squares=[16.1]),  # of four numbers from 1 to 5
        lambda x, all: x.update(squares=[1e99]),
        lambda x, all: x.update(low=[9.0]),
        lambda x, all: x.update(shape=[10**6, 10**6]),
        lambda x, all: x.update(shape="x"),
        lambda x, all: x.update(sketch=[[[5, 3]]]),
        lambda x, all: x.update(sketch=[[[5, 2], [5, 2]]]),
        lambda x, all: x.update(sketch=[[[10**9, 4]]]),
        lambda x, all: x.update(sketch=[[], []]),
        lambda x, all: x.pop("sketch"),
        lambda x, all: x.update(sums=[4e101], low=[1e101], high=[1e101]),
        lambda x, all: x.update(values=[[1, 1]]),
        lambda x, all: x.update(values=[[0.5, 4]]),
        lambda x, all: x.pop("squares"),
        lambda x, all: all.update(rows=0),
        lambda x, all: all.update(rows=5),
        lambda x, all: all.update(arrays=[]),
    ],
)
def test_what_is_no_summary_is_refused_in_one_line(change) -> None:
    with pytest.raises(CodecError, match="A summary of data cannot be read") as refused:
        Summary.decode(damaged(change))
    assert "\n" not in refused.value.message


@given(
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=30),
    st.sampled_from([0.0, 1e3, 1e9, -1e20]),
    st.integers(1, 7),
)
def test_what_is_true_is_never_refused(numbers, away: float, parts: int) -> None:
    values = (np.array(numbers, np.float32) + np.float32(away)).astype(np.float32)[:, None]
    pieces = [each for each in np.array_split(values, parts) if len(each)]
    summary = Summary(len(values), {"x": ArraySummary.of(pieces, (1,), whole=False)})
    assert Summary.decode(summary.encode()).rows == len(values)


def test_the_largest_that_is_taken_is_finite_with_others() -> None:
    def of(size: float) -> bytes:
        return damaged(lambda x, all: x.update(sums=[size], squares=[1e100], low=[size / 4], high=[size / 4]))

    both = Summary.decode(of(1e100)).merged(Summary.decode(of(-1e100))).arrays["x"]
    assert np.isfinite(both.variance).all()


@given(st.binary(max_size=200))
def test_bytes_that_are_none_are_refused(data: bytes) -> None:
    with pytest.raises(CodecError):
        Summary.decode(data)
