from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from examples.fashion_mnist.images import DEBIAN_FOLDER

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.slow
@pytest.mark.skipif(not DEBIAN_FOLDER.exists(), reason="needs Debian's package dataset-fashion-mnist")
def test_devices_that_keep_being_killed_train_the_same_weights_as_undisturbed_ones(tmp_path: Path) -> None:
    out = tmp_path / "fashion"
    command = [sys.executable, ROOT / "examples" / "fashion_mnist" / "run.py", "--out", out]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads((out / "summary.json").read_text())
    assert summary["kills"] >= summary["rounds"]
    assert summary["same_weights"]
    assert summary["outcomes_folded"] == summary["rounds"] * summary["devices"]
    assert summary["outcomes_discarded"] == 0
    assert summary["federated_accuracy"] >= summary["initial_accuracy"] + 0.4
    assert summary["federated_accuracy"] >= summary["alone_accuracy_mean"] + 0.1


def test_without_the_data_it_says_where_to_get_them(tmp_path: Path) -> None:
    command = [sys.executable, ROOT / "examples" / "fashion_mnist" / "run.py", "--out", tmp_path / "out"]
    done = subprocess.run([*command, "--data", tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 22
    assert "dataset-fashion-mnist" in done.stderr
    assert "Traceback" not in done.stderr
