"""The benchmark of data that stays in files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "data_files.py"


@pytest.mark.slow
def test_every_form_of_the_data_is_measured_and_trains_the_same(tmp_path: Path) -> None:
    file = tmp_path / "table.json"
    command = [sys.executable, PROGRAM, "--megabytes", "24", "--turns", "2", "--json", str(file)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = json.loads(file.read_text())
    assert [(row["width"], row["form"]) for row in rows] == [
        (width, form) for width in (784, 6) for form in ("in memory", ".npy", ".npz")
    ]
    assert all(row["peak_mb"] < 120 for row in rows)
    assert ".npz / .npy:" in done.stdout
