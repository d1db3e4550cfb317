"""Rounds as a table: nothing nested, and columns of one kind."""

from __future__ import annotations

import io

import pytest

from edgefl_simulation import round_table

pq = pytest.importorskip("pyarrow.parquet")

ROUNDS = [
    {"round": 1, "clock": 0, "central": {"loss": 1.5}, "outcomes": {"done": 3}, "staleness": [0, 1]},
    {
        "round": 2,
        "clock": 2.5,
        "state": "failed",
        "errors": ["a", "b"],
        "federated": {"loss": {"quantiles": {"0.5": 1}}},
    },
    {"round": 3, "clock": 4, "central": {"loss": 2}, "errors": [], "federated": {}},
]


def test_what_is_nested_gets_names_with_dots_and_what_a_round_lacks_is_null():
    table = pq.read_table(io.BytesIO(round_table.parquet(ROUNDS)))
    assert table.num_rows == 3
    assert table["round"].to_pylist() == [1, 2, 3]
    assert table["clock"].to_pylist() == [0.0, 2.5, 4.0]
    assert table["central.loss"].to_pylist() == [1.5, None, 2.0]
    assert table["outcomes.done"].to_pylist() == [3, None, None]
    assert table["federated.loss.quantiles.0.5"].to_pylist() == [None, 1, None]
    assert table["errors"].to_pylist() == [None, ["a", "b"], []]
    assert table["staleness"].to_pylist() == [[0, 1], None, None]


@pytest.mark.parametrize("values", [[1, "a"], [[1], ["a", 2.5]], [2**70, 1], [[1, "a"], None]])
def test_a_mixture_is_kept_as_text(values):
    table = pq.read_table(io.BytesIO(round_table.parquet([{"mixed": value} for value in values])))
    assert table["mixed"].to_pylist() == [None if value is None else str(value) for value in values]


def test_without_rounds_or_without_pyarrow_there_is_still_a_run(monkeypatch):
    assert pq.read_table(io.BytesIO(round_table.parquet([]))).num_rows == 0
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    assert round_table.parquet(ROUNDS) is None
