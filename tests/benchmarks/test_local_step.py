from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgefl.targets import COMPILED_MODEL
from interpreters import EXPECTED

OWN = [f"edgefl {name}" for name in (*EXPECTED, COMPILED_MODEL)]
PROGRAM = Path(__file__).parents[2] / "benchmarks" / "local_step.py"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, PROGRAM, *arguments], capture_output=True, text=True)


def quick_rows(tmp_path: Path, *contenders: str) -> dict[str, Any]:
    file = tmp_path / "table.json"
    done = run("--quick", "--models", "2nn", "--contenders", ",".join(contenders), "--json", str(file))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "cold_start_s" in done.stdout
    rows = {row["contender"]: row for row in json.loads(file.read_text())["rows"]}
    for row in rows.values():
        assert row["ratios"]["PyTorch"] is None
        assert min(row["step_ms"], row["peak_rss_mb"], row["pss_mb"], row["cold_start_s"]) > 0
        assert len(row["losses"]) == 4
    return rows


def test_a_quick_run_gives_rows(tmp_path: Path) -> None:
    assert list(quick_rows(tmp_path, "edgefl")) == OWN


@pytest.mark.slow
def test_a_quick_run_beside_a_peer_gives_rows_with_ratios(tmp_path: Path) -> None:
    rows = quick_rows(tmp_path, "edgefl", "tf.function graph")
    assert list(rows) == [*OWN, "tf.function graph"]
    assert all(row["ratios"]["tf.function"] > 0 for row in rows.values())
    assert rows["tf.function graph"]["ratios"]["tf.function"] == 1.0


def test_an_unknown_model_is_named_with_those_that_there_are() -> None:
    done = run("--models", "2nn,resnet")
    assert done.returncode == 2
    assert "there is no model resnet" in done.stderr
    assert "fedavg_cnn" in done.stderr


def test_an_unknown_contender_is_named_with_those_that_there_are() -> None:
    done = run("--contenders", "JAX")
    assert done.returncode == 2
    assert "no contender has JAX in its name" in done.stderr
    assert "ONNX Runtime" in done.stderr
