"""The benchmark of what a fleet's load does to one server process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "load.py"


def test_a_small_fleet_is_served_and_the_table_says_how(tmp_path: Path) -> None:
    file = tmp_path / "table.json"
    sizes = ["--waiting", "60", "--target", "20", "--uploads", "6", "--upload-elements", "50000", "--turns", "1"]
    sizes += ["--updates", "8", "--update-elements", "10000", "--folder", str(tmp_path)]
    done = subprocess.run([sys.executable, PROGRAM, *sizes, "--json", file], capture_output=True, text=True)
    # A bound that is not held says something about the machine: no test is about time.
    assert done.returncode == 0 or "A bound is not held." in done.stderr, done.stdout + done.stderr
    rows = json.loads(file.read_text())
    assert {row["part"] for row in rows} == {
        "60 wait, 20 are asked",
        "6 uploads of 0.2 MB at once",
        "a fold of 8 x 0.0 MB",
    }
    by_what = {row["what"]: row for row in rows}
    assert by_what["answered with 202"]["value"] == 6
    assert by_what["until the last has its task"]["bound"] == 20
    assert all(row["what"] in done.stdout for row in rows)


def test_a_part_that_there_is_not_is_named() -> None:
    done = subprocess.run([sys.executable, PROGRAM, "--parts", "fold,unknown"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "got unknown" in done.stderr
