"""Rounds as Parquet: columns of one kind."""

from __future__ import annotations

import io

import pytest

from edgefl_simulation import round_table

pq = pytest.importorskip("pyarrow.parquet")

ROUNDS = [
    {"round": 1, "clock": 0, "central.loss": 1.5, "outcomes.done": 3},
    {"round": 2, "clock": 2.5, "state": "failed", "errors": "a; b"},
    {"round": 3, "clock": 4, "central.loss": 2, "state": None},
]


def test_what_a_round_lacks_is_null_and_a_column_is_of_one_kind():
    table = pq.read_table(io.BytesIO(round_table.parquet(ROUNDS)))
    assert table.to_pydict() == {
        "round": [1, 2, 3],
        "clock": [0.0, 2.5, 4.0],
        "central.loss": [1.5, None, 2.0],
        "outcomes.done": [3, None, None],
        "state": [None, "failed", None],
        "errors": [None, "a; b", None],
    }


@pytest.mark.parametrize("values", [[1, "a"], [[1], ["a", 2.5]], [2**70, 1], [[1, "a"], None]])
def test_a_mixture_is_kept_as_text(values):
    table = pq.read_table(io.BytesIO(round_table.parquet([{"mixed": value} for value in values])))
    assert table["mixed"].to_pylist() == [None if value is None else str(value) for value in values]


def test_without_rounds_or_without_pyarrow_there_is_still_a_run(monkeypatch):
    assert pq.read_table(io.BytesIO(round_table.parquet([]))).num_rows == 0
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    assert round_table.parquet(ROUNDS) is None
