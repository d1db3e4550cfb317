from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefl.errors import DataError, InvalidSettingError
from edgefl.wire.messages import BatchPolicy
from edgefl_device_runtime.training.batches import BatchBuffers, batches, number_of_batches, resolve_policy
from edgefl_device_runtime.training.data import Column

PAD, DROP, REFILL = BatchPolicy.PAD, BatchPolicy.DROP, BatchPolicy.REFILL
sizes = st.tuples(st.integers(1, 9), st.integers(0, 5)).map(lambda pair: (pair[0], pair[0] + pair[1]))


@given(rows=st.integers(1, 60), size=sizes, seed=st.integers(0, 99))
def test_padding_visits_every_row_exactly_once_an_epoch(rows: int, size: tuple[int, int], seed: int) -> None:
    batch_size, static_size = size
    order = np.random.default_rng(seed).permutation(rows)
    seen = []
    for chosen, real in batches(order, batch_size, static_size, PAD):
        assert chosen.shape == (static_size,)
        assert 1 <= real <= batch_size
        assert set(chosen[real:]) <= set(chosen[:real])
        seen += list(chosen[:real])
    assert seen == list(order)


@given(rows=st.integers(1, 60), size=sizes)
def test_dropping_visits_full_batches_only(rows: int, size: tuple[int, int]) -> None:
    batch_size, static_size = size
    cut = list(batches(np.arange(rows), batch_size, static_size, DROP))
    assert all(real == batch_size for _, real in cut)
    seen = [row for chosen, real in cut for row in chosen[:real]]
    assert seen == list(range(rows - rows % batch_size))


@given(rows=st.integers(1, 60), size=sizes)
def test_refilling_visits_every_row_and_only_full_batches(rows: int, size: tuple[int, int]) -> None:
    batch_size, static_size = size
    counts = np.zeros(rows, int)
    for chosen, real in batches(np.arange(rows), batch_size, static_size, REFILL):
        assert real == batch_size
        if rows >= batch_size:
            assert len(set(chosen[:real])) == real
        np.add.at(counts, chosen[:real], 1)
    assert counts.min() >= 1
    assert counts.sum() == -(-rows // batch_size) * batch_size


@given(rows=st.integers(1, 60), size=sizes, policy=st.sampled_from([PAD, DROP, REFILL]))
def test_the_number_of_batches_is_known_beforehand(rows: int, size: tuple[int, int], policy: BatchPolicy) -> None:
    cut = list(batches(np.arange(rows), *size, policy))
    assert len(cut) == number_of_batches(rows, size[0], policy)


@given(rows=st.integers(1, 40), size=sizes, weighted=st.booleans(), divides=st.booleans(), seed=st.integers(0, 99))
def test_buffers_hold_the_rows_and_weights_that_make_a_partial_batch_exact(
    rows: int, size: tuple[int, int], weighted: bool, divides: bool, seed: int
) -> None:
    batch_size, static_size = size
    random = np.random.default_rng(seed)
    data = random.normal(size=(rows, 3))
    user = random.uniform(0.5, 2, rows).astype(np.float32) if weighted else None
    column = Column("x", data, np.dtype(np.float32))
    buffers = BatchBuffers([column], {"x": "tensor"}, static_size, user, divides=divides)
    cut = list(batches(np.arange(rows), batch_size, static_size, PAD))
    for (chosen, expected_real), real in zip(cut, buffers.fill(iter(cut)), strict=True):
        assert real == expected_real
        np.testing.assert_array_equal(buffers.arrays["tensor"], data[chosen].astype(np.float32))
        expected = np.ones(real) if user is None else user[chosen[:real]]
        scale = static_size / real if divides else 1
        np.testing.assert_allclose(buffers.weights[:real], expected * scale, rtol=1e-6)
        np.testing.assert_array_equal(buffers.weights[real:], 0)
        if divides and user is None:
            assert buffers.weights.sum() == pytest.approx(static_size)


def test_buffers_stay_the_same_arrays_from_step_to_step() -> None:
    column = Column("x", np.arange(10, dtype=np.int64), np.dtype(np.int32))
    buffers = BatchBuffers([column], {"x": "x"}, 4, divides=True)
    before = buffers.arrays["x"]
    next(buffers.fill(iter([(np.array([9, 8, 7, 6]), 4)])))
    assert buffers.arrays["x"] is before
    assert list(before) == [9, 8, 7, 6]


@pytest.mark.parametrize(
    ("rows", "mixes_rows", "policy"), [(35, False, PAD), (3, False, PAD), (35, True, DROP), (3, True, REFILL)]
)
def test_the_models_policy_pads_where_it_can_and_never_leaves_nothing(
    rows: int, mixes_rows: bool, policy: BatchPolicy
) -> None:
    assert resolve_policy("model", rows=rows, batch_size=8, mixes_rows=mixes_rows) is policy


def test_a_policy_goes_by_name_number_or_member() -> None:
    for policy in ("drop", 2, DROP):
        assert resolve_policy(policy, rows=8, batch_size=8, mixes_rows=False) is DROP  # type: ignore[arg-type]


def test_a_policy_that_cannot_be_followed_is_refused() -> None:
    with pytest.raises(InvalidSettingError, match="model, pad, drop, refill"):
        resolve_policy("ignore", rows=8, batch_size=8, mixes_rows=False)
    with pytest.raises(InvalidSettingError, match="mixes"):
        resolve_policy(PAD, rows=8, batch_size=8, mixes_rows=True)
    with pytest.raises(DataError, match="leaves nothing of 7 rows"):
        resolve_policy(DROP, rows=7, batch_size=8, mixes_rows=True)
