"""A server that is killed at any commit, rename or fsync ends with the same weights to the last bit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("faults_in_a_child.py")


def sweep(folder: Path, strategy: str, every: int, first: int = 1) -> list[tuple[int, str]]:
    """The points at which it was killed, of which each ended with the weights of an undisturbed run."""
    command = [sys.executable, PROGRAM, folder, strategy, str(every), str(first)]
    found_here = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(command, capture_output=True, text=True, env=found_here)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {weights for _, _, weights in found["killed"]} == {found["undisturbed"]}
    return [(at, what) for at, what, _ in found["killed"]]


def test_a_kill_at_some_commits_renames_and_syncs_changes_nothing(tmp_path: Path) -> None:
    points = sweep(tmp_path, "fedavg", every=13)
    assert len(points) >= 5


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["fedavg", "scaffold"])
def test_a_kill_at_any_commit_rename_and_sync_changes_nothing(tmp_path: Path, strategy: str) -> None:
    points = sweep(tmp_path, strategy, every=1)
    kinds = {what for _, what in points}
    assert kinds == {f"{when} {what}" for when in ("before", "after") for what in ("fsync", "rename", "commit")}
    assert len(points) >= 60
