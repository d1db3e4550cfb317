"""The post's program runs, and its losses fall."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_program_of_the_post_prints_five_falling_losses(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    command = [sys.executable, "-m", "examples.tensorflow_federated_post.post"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    losses = [float(line) for line in done.stdout.splitlines()]
    assert len(losses) == 5
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.5 < 1.5 < losses[0] < 2.4
