from __future__ import annotations

from typing import Any

import pytest

from edgefl.errors import RunError
from edgefl_server.statistics_text import latest, table

FOUND: dict[str, Any] = {
    "rows": 1200,
    "devices": 6,
    "inputs": ["x"],
    "arrays": {
        "x": {
            "shape": [2],
            "count": 1200,
            "mean": [1.5, -2.0],
            "variance": [4.0, 0.25],
            "low": [-3.0, -4.0],
            "high": [7.0, 0.5],
            "quantiles": {"0.5": [1.25, -2.25]},
        },
        "y": {
            "shape": [],
            "count": 1200,
            "mean": [0.25],
            "variance": [0.1875],
            "low": [0.0],
            "high": [1.0],
            "values": [[0, 900], [1, 300]],
        },
    },
}


def status(kind: str, state: str, *findings: dict[str, Any], why: str = "") -> dict[str, Any]:
    history = [{"findings": each} for each in findings]
    return {"run": "abc", "state": state, "why": why, "settings": {"kind": kind}, "history": history}


def test_the_statistics_are_those_of_the_latest_round_that_has_some() -> None:
    older, newer = {**FOUND, "rows": 1}, FOUND
    found = latest(status("statistics", "done", {"statistics": older}, {"statistics": newer}, {}))
    assert found is newer


def test_each_feature_has_a_line_and_each_class_its_count() -> None:
    lines = table({**FOUND, "file": "s.json"}).splitlines()
    assert lines[0] == "1,200 examples of 6 devices"
    assert lines[1].startswith("input x, rows of shape (2,)")
    assert lines[3].split() == ["0", "1.5", "2", "-3", "1.25", "7"]
    assert lines[5].startswith("target y")
    assert lines[6] == "  counts: 0 ×900, 1 ×300"
    assert "edgefl convert MODEL --normalization s.json" in lines[-1]


def test_many_features_and_values_are_cut_off_with_how_many_more_there_are() -> None:
    x = {**FOUND["arrays"]["x"], **{name: [1.0] * 50 for name in ("mean", "variance", "low", "high")}}
    del x["quantiles"]
    y = {**FOUND["arrays"]["y"], "values": [[value, 1] for value in range(90)]}
    text = table({**FOUND, "arrays": {"x": x, "y": y}})
    assert " - " in text
    assert "… 30 more" in text
    assert "… 70 more" in text
    assert len(text.splitlines()) < 30


def test_a_run_that_trains_and_one_that_has_found_nothing_yet_say_so() -> None:
    with pytest.raises(RunError, match="asks its devices to train") as refused:
        latest(status("train", "active", {}))
    assert "--kind statistics" in refused.value.hint
    with pytest.raises(RunError, match=r"no statistics yet: it is failed \(too few\)"):
        latest(status("statistics", "failed", {}, why="too few"))


@pytest.mark.parametrize(("state", "hint"), [("active", "what it waits for"), ("failed", "--rounds +1")])
def test_who_asks_too_early_or_too_late_is_told_what_to_do(state: str, hint: str) -> None:
    status = {"run": "r", "state": state, "why": "", "settings": {"kind": "statistics"}, "history": [{"findings": {}}]}
    with pytest.raises(RunError, match=f"has found no statistics yet: it is {state}") as refused:
        latest(status)
    assert hint in str(refused.value)
