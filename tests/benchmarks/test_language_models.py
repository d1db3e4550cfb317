"""The benchmark of LoRA on a language model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from interpreters import EXPECTED
from language.sizes import SIZES, batch_of, causal_mask, read, rotations, write
from language_models import missed

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "language_models.py"


@pytest.mark.slow
def test_all_contenders_compute_the_same_and_are_timed(tmp_path: Path) -> None:
    file = tmp_path / "table.json"
    options = ["--sizes", "1M", "--threads", "1", "--slices", "1", "--seconds", "0.1", "--json", file]
    done = subprocess.run([sys.executable, PROGRAM, *map(str, options)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(file.read_text())
    own = [row for row in found["rows"] if row["contender"] != "PyTorch"]
    assert [row["contender"] for row in own] == [*(f"edgefl {each}" for each in EXPECTED), "Keras"]
    for row in found["rows"]:
        assert row["why_not"] is None
        assert row["step_ms"] > 0
        assert 0 < row["anonymous_mb"] < row["peak_mb"]
    assert found["conversions"]["1M"]["parameters"] == 982_144


def test_weights_are_mapped_by_name_and_no_write_reaches_the_file(tmp_path: Path) -> None:
    write(tmp_path / "base", {"a/kernel": np.ones((2, 3), np.float32), "b": np.zeros(1, np.float32)})
    found = read(tmp_path / "base")
    assert isinstance(found["a/kernel"], np.memmap)
    found["a/kernel"][:] = 7
    assert read(tmp_path / "base")["a/kernel"].tolist() == [[1, 1, 1], [1, 1, 1]]
    assert list(found) == ["a/kernel", "b"]


def test_a_token_sees_none_that_follow_and_is_asked_for_the_next() -> None:
    size = SIZES["1M"]
    mask, (cosines, sines), (x, y) = causal_mask(size), rotations(size), batch_of(size)
    assert (mask[5, :6] == 0).all()
    assert (mask[5, 6:] < -1e8).all()
    assert cosines.shape == sines.shape == (size.length, 1, size.head_width)
    np.testing.assert_allclose(cosines**2 + sines**2, 1, rtol=1e-6)
    assert (x[:, 1:] == y[:, :-1]).all()
    assert x.max() < size.vocabulary


def test_bars_are_those_of_the_fastest_runtime_on_one_thread() -> None:
    row = {"size": "10M", "threads": 1, "why_not": None, "anonymous_mb": 1.0, "of_torch": 0.5}
    fast = {**row, "contender": "edgefl one", "step_ms": 1.0, "peak_mb": 151.0}
    slow = {**row, "contender": "edgefl other", "step_ms": 2.0, "peak_mb": 10.0}
    peer = {**row, "contender": "PyTorch", "step_ms": 0.1, "peak_mb": 1.0}
    assert missed([fast, slow, peer]) == ["10M: peak_mb 151.00, at most 150"]
    assert missed([{**fast, "peak_mb": 149.0}, slow, peer]) == []
    assert missed([{**fast, "threads": 2}, {**fast, "why_not": "FAILED"}]) == []


def test_a_wrong_size_is_named() -> None:
    done = subprocess.run([sys.executable, PROGRAM, "--sizes", "2M"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "there is no size 2M; there are 1M, 10M, 30M, 125M" in done.stderr


def test_weights_are_written_again_where_a_run_was_interrupted(tmp_path: Path) -> None:
    write(tmp_path / "base", {"a/kernel": np.zeros((2, 3), np.float32), "b": np.zeros(1, np.float32)})
    write(tmp_path / "base", {"a/kernel": np.ones((2, 3), np.float32)})
    assert {name: each.tolist() for name, each in read(tmp_path / "base").items()} == {"a/kernel": [[1.0] * 3] * 2}
