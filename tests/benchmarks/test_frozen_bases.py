"""The benchmark of what large frozen bases cost."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from interpreters import EXPECTED

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "frozen_bases.py"


@pytest.mark.slow
def test_kernels_that_are_read_in_place_take_less_memory_on_the_faster_runtime(tmp_path: Path) -> None:
    file = tmp_path / "table.json"
    command = [sys.executable, PROGRAM, "--cases", "resnet50_head", "--steps", "1", "--json", str(file)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = json.loads(file.read_text())
    assert [(row["kernels"], row["runtime"]) for row in rows] == [
        (how, runtime) for how in ("read in place", "packed") for runtime in EXPECTED
    ]
    in_place, packed = rows[0], rows[len(EXPECTED)]
    assert in_place["anonymous_mb"] < 0.8 * packed["anonymous_mb"]


def test_an_unknown_case_is_named_with_those_that_there_are() -> None:
    done = subprocess.run([sys.executable, PROGRAM, "--cases", "resnet"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "there is no case resnet" in done.stderr
    assert "decoder_10m" in done.stderr
