from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefl.errors import InvalidSettingError
from edgefl_device_runtime.training.randomness import check_seed, row_order, step_seeds

seeds = st.integers(0, 2**64 - 1)


def test_the_random_numbers_are_these_for_ever_and_everywhere() -> None:
    assert row_order(10, 0, 0).tolist() == [7, 6, 8, 3, 2, 4, 1, 5, 0, 9]
    assert step_seeds(4, 0, 0).tolist() == [-1060333756, 1805715297, 302825063, -843580481]
    assert step_seeds(2, 2**64 - 1, 7).tolist() == [-1001317581, 967567066]


@given(rows=st.integers(1, 200), seed=seeds, epoch=st.integers(0, 1000))
def test_an_order_is_a_permutation(rows: int, seed: int, epoch: int) -> None:
    assert sorted(row_order(rows, seed, epoch)) == list(range(rows))


@given(seed=seeds, epoch=st.integers(0, 1000), steps=st.integers(1, 50))
def test_the_seed_of_a_step_does_not_depend_on_how_many_follow(seed: int, epoch: int, steps: int) -> None:
    np.testing.assert_array_equal(step_seeds(steps, seed, epoch), step_seeds(60, seed, epoch)[:steps])


def test_seeds_epochs_and_steps_all_differ() -> None:
    drawn = {int(each) for seed in range(10) for epoch in range(10) for each in step_seeds(10, seed, epoch)}
    assert len(drawn) == 1000
    orders = {tuple(row_order(20, seed, epoch)) for seed in range(10) for epoch in range(10)}
    assert len(orders) == 100


@pytest.mark.parametrize("seed", [-1, 1.0, "1", None, True])
def test_what_is_no_seed_is_refused(seed: object) -> None:
    with pytest.raises(InvalidSettingError, match="seed"):
        check_seed(seed)  # type: ignore[arg-type]
