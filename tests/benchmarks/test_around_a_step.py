from __future__ import annotations

from pathlib import Path

import pytest

import around_a_step
from edgefl_device_runtime.training import TrainableModel


@pytest.mark.parametrize("name", [pytest.param("mlp", marks=pytest.mark.slow), "two_inputs"])
def test_every_way_to_take_a_step_is_timed(
    name: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(around_a_step, "TURNS", 1)
    monkeypatch.setattr(around_a_step, "TURN_SECONDS", 0.02)
    file: Path = request.getfixturevalue(f"{name}_file")
    found = around_a_step.measure(TrainableModel(file))
    assert list(found) == [
        *("the interpreter's call", "train_on_batch", "a step of fit"),
        *("train_on_batch, Python alone", "a step of fit, Python alone"),
    ]
    assert min(found.values()) > 0
