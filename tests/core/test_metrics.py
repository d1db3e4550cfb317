from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefl.errors import DataError, FormatVersionError
from edgefl.manifest import Metric
from edgefl.metrics import add_states, finalise

ACCURACY = Metric("accuracy", "mean", ("accuracy/total", "accuracy/count"))
parts = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=8)


@given(parts)
def test_summed_states_give_the_value_over_everything(pairs: list[tuple[int, int]]) -> None:
    sums: dict[str, np.ndarray] = {}
    for total, count in pairs:
        add_states(sums, {"accuracy/total": np.float32(total), "accuracy/count": [count], "loss_sum": total, "rows": 1})
    count = sum(count for _, count in pairs)
    total = sum(total for total, _ in pairs)
    values = finalise([ACCURACY], sums)
    assert list(values) == ["loss", "accuracy"]
    assert values["accuracy"] == (total / count if count else 0.0)
    assert values["loss"] == total / len(pairs)


def test_adding_does_not_change_the_arrays_that_were_added() -> None:
    state, sums = np.ones(3), {}
    add_states(sums, {"a": state})
    add_states(sums, {"a": state})
    assert state.tolist() == [1, 1, 1]
    assert sums["a"].tolist() == [2, 2, 2]


def test_the_loss_is_left_out_where_it_has_no_states() -> None:
    assert finalise([ACCURACY], {"accuracy/total": 3, "accuracy/count": 4}) == {"accuracy": 0.75}


def test_a_missing_state_or_an_unknown_finaliser_is_named() -> None:
    with pytest.raises(DataError, match="accuracy/count"):
        finalise([ACCURACY], {"accuracy/total": 1})
    with pytest.raises(FormatVersionError, match="'auc' needs the finaliser 'area'"):
        finalise([Metric("auc", "area", ("a",))], {"a": 1})
