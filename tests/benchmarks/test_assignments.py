"""The benchmark of what a task of a large cohort costs the server."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "assignments.py"


@pytest.mark.slow
def test_a_task_of_a_cohort_of_six_hundred_costs_what_one_of_a_hundred_costs(tmp_path: Path) -> None:
    file = tmp_path / "table.json"
    done = subprocess.run([sys.executable, PROGRAM, "--tasks", "600", "--json", file], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    small, large = json.loads(file.read_text())
    assert (small["tasks"], large["tasks"]) == (100, 600)
    assert large["ratio"] <= 1.5
    assert "large / small:" in done.stdout
