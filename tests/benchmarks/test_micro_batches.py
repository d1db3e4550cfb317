"""The benchmark of what micro-batches save."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from interpreters import EXPECTED

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "micro_batches.py"


@pytest.mark.slow
def test_less_memory_is_measured_for_fewer_rows_at_once_on_each_runtime(tmp_path: Path) -> None:
    file = tmp_path / "table.json"
    command = [sys.executable, PROGRAM, "--models", "smartwatch_1d_cnn", "--rows", "32,8", "--json", str(file)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = json.loads(file.read_text())["rows"]
    assert [(row["rows"], row["runtime"]) for row in rows] == [
        (size, runtime) for size in (32, 8) for runtime in EXPECTED
    ]
    for whole, parts in zip(rows[: len(EXPECTED)], rows[len(EXPECTED) :], strict=True):
        assert 0 < parts["arena_mb"] < 0.7 * whole["arena_mb"]
        assert parts["peak_rss_mb"] > 0
    assert "peak RSS MB" in done.stdout


def test_an_unknown_model_is_named_with_those_that_there_are() -> None:
    done = subprocess.run([sys.executable, PROGRAM, "--models", "resnet"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "there is no model resnet" in done.stderr
    assert "fedavg_cnn" in done.stderr
