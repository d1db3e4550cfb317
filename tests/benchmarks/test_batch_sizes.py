"""The benchmark of what several batch sizes in one file cost and gain."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from interpreters import EXPECTED

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "batch_sizes.py"


@pytest.mark.slow
def test_fewer_rows_are_timed_padded_and_at_their_own_size_on_each_runtime(tmp_path: Path) -> None:
    file = tmp_path / "table.json"
    command = [sys.executable, PROGRAM, "--models", "smartwatch_1d_cnn", "--sizes", "4,32", "--quick", "--json", file]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = json.loads(file.read_text())["rows"]
    assert [(row["runtime"], row["rows"]) for row in rows] == [(each, size) for each in EXPECTED for size in (32, 4)]
    for row in rows:
        assert 0 < row["padded_file_kb"] < row["own_file_kb"]
        assert min(row[f"{kind}_{what}"] for kind in ("padded", "own") for what in ("ms", "peak_rss_mb")) > 0
    assert "own MB" in done.stdout


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--models", "resnet"], "there is no model resnet"),
        (["--sizes", "8,8"], "--sizes"),
        (["--sizes", "8"], "--sizes"),
    ],
)
def test_a_wrong_option_is_named(options: list[str], words: str) -> None:
    done = subprocess.run([sys.executable, PROGRAM, *options], capture_output=True, text=True)
    assert done.returncode == 2
    assert words in done.stderr
