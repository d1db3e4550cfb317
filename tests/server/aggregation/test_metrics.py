from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgefl.manifest import Metric
from edgefl.wire.messages import MetricState
from edgefl_server.aggregation import finalise, known_states, sum_states

ACCURACY = Metric("accuracy", "mean", ("accuracy_total", "accuracy_count"))
counts = st.integers(0, 10_000)


@given(st.lists(st.tuples(counts, counts), min_size=1, max_size=8), st.randoms())
def test_the_fleets_accuracy_is_that_of_all_rows_together(devices: list[tuple[int, int]], random) -> None:
    sums: dict[str, list[float]] = {}
    order = list(devices)
    random.shuffle(order)
    for right, rows in order:
        states = [MetricState("accuracy_total", (float(right),)), MetricState("accuracy_count", (float(rows),))]
        sums = sum_states(sums, states)
    values = finalise(sums, [ACCURACY])
    rows = sum(each[1] for each in devices)
    assert values == {"accuracy": sum(each[0] for each in devices) / rows if rows else 0.0}


def test_the_loss_is_the_sum_over_rows_divided_by_their_number() -> None:
    sums = sum_states(
        {"loss_sum": [3.0], "rows": [2.0]}, [MetricState("loss_sum", (1.0,)), MetricState("rows", (6.0,))]
    )
    assert finalise(sums, []) == {"loss": 0.5}


def test_a_state_of_another_length_than_before_is_left_out() -> None:
    assert sum_states({"rows": [2.0]}, [MetricState("rows", (1.0, 1.0))]) == {"rows": [2.0]}


def test_a_metric_without_its_states_or_with_an_unknown_finaliser_has_no_value() -> None:
    assert finalise({"accuracy_total": [1.0]}, [ACCURACY]) == {}
    assert finalise({"a": [1.0], "b": [1.0]}, [Metric("m", "median", ("a", "b"))]) == {}


def test_only_states_of_the_manifest_and_of_the_loss_are_known() -> None:
    assert known_states([ACCURACY]) == {"loss_sum", "rows", "accuracy_total", "accuracy_count"}
