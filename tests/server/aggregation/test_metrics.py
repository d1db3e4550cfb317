from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgefl.manifest import Metric
from edgefl.wire.messages import MetricState
from edgefl_server.aggregation import finalise, sum_states

ACCURACY = Metric("accuracy", "mean", ("accuracy_total", "accuracy_count"))
SIZES = {"loss_sum": 1, "rows": 1, "accuracy_total": 1, "accuracy_count": 1}
counts = st.integers(0, 10_000)


def loss(total: float, rows: float) -> list[MetricState]:
    return [MetricState("loss_sum", (total,)), MetricState("rows", (rows,))]


@given(st.lists(st.tuples(counts, counts), min_size=1, max_size=8), st.randoms())
def test_the_fleets_accuracy_is_that_of_all_rows_together(devices: list[tuple[int, int]], random) -> None:
    sums: dict[str, list[float]] = {}
    order = list(devices)
    random.shuffle(order)
    for right, rows in order:
        states = [MetricState("accuracy_total", (float(right),)), MetricState("accuracy_count", (float(rows),))]
        sums = sum_states(sums, states, [ACCURACY], SIZES)
    values = finalise(sums, [ACCURACY])
    rows = sum(each[1] for each in devices)
    assert values == {"accuracy": sum(each[0] for each in devices) / rows if rows else 0.0}


def test_the_loss_is_the_sum_over_rows_divided_by_their_number() -> None:
    sums = sum_states({"loss_sum": [3.0], "rows": [2.0]}, loss(1.0, 6.0), [], SIZES)
    assert finalise(sums, []) == {"loss": 0.5}


def test_whoever_comes_first_with_a_state_of_another_length_does_not_shut_out_the_others() -> None:
    liar = [MetricState("accuracy_total", (1.0, 1.0)), MetricState("accuracy_count", (1.0,)), *loss(4.0, 4.0)]
    honest = [MetricState("accuracy_total", (3.0,)), MetricState("accuracy_count", (4.0,)), *loss(2.0, 4.0)]
    sums = sum_states(sum_states({}, liar, [ACCURACY], SIZES), honest, [ACCURACY], SIZES)
    assert finalise(sums, [ACCURACY]) == {"loss": 0.75, "accuracy": 0.75}


def test_a_part_of_a_metric_does_not_count_for_the_others() -> None:
    sums = sum_states(loss_sums := {"loss_sum": [1.0], "rows": [2.0]}, loss(1e9, 1.0)[:1], [ACCURACY], SIZES)
    assert sums == loss_sums
    assert sum_states({}, [MetricState("accuracy_total", (9.0,))], [ACCURACY], SIZES) == {}


def test_a_device_that_counts_for_less_than_it_says_has_as_little_part_in_the_metrics() -> None:
    liar, honest = loss(100_000.0, 100_000.0), loss(0.0, 100.0)
    sums = sum_states(sum_states({}, honest, [], SIZES), liar, [], SIZES, 0.001)
    assert finalise(sums, []) == {"loss": 0.5}


def test_a_metric_without_its_states_or_with_an_unknown_finaliser_has_no_value() -> None:
    assert finalise({"accuracy_total": [1.0]}, [ACCURACY]) == {}
    assert finalise({"a": [1.0], "b": [1.0]}, [Metric("m", "median", ("a", "b"))]) == {}


def test_states_that_no_metric_has_are_not_kept() -> None:
    assert sum_states({}, [MetricState("unheard_of", (1.0,))], [ACCURACY], {**SIZES, "unheard_of": 1}) == {}
    assert sum_states({}, [MetricState("accuracy_total", (1.0,))], [ACCURACY], {}) == {}
