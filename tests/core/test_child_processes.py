from __future__ import annotations

from pathlib import Path

import pytest

from edgefl.child_processes import ChildFailedError, run_child


@pytest.fixture
def script(tmp_path: Path) -> Path:
    return tmp_path / "script.py"


def test_a_script_gets_its_arguments_and_its_job_and_its_output_comes_back(script: Path) -> None:
    script.write_text("import json, sys; print(sys.argv[1:], json.load(sys.stdin))")
    assert run_child(script, "a", Path("b"), seconds=60, job={"c": [1]}) == "['a', 'b'] {'c': [1]}\n"


def test_a_script_that_fails_says_why_in_its_last_line(script: Path) -> None:
    script.write_text("import sys; print('out'); raise ValueError('no such op')")
    with pytest.raises(ChildFailedError, match="ValueError: no such op") as failed:
        run_child(script, seconds=60)
    assert (failed.value.returncode, failed.value.killed_by, failed.value.timed_out) == (1, "", False)


def test_a_script_that_is_killed_names_the_signal(script: Path) -> None:
    script.write_text("import os; os.kill(os.getpid(), 11)")
    with pytest.raises(ChildFailedError, match="SIGSEGV") as failed:
        run_child(script, seconds=60)
    assert (failed.value.returncode, failed.value.last_line) == (-11, "")


def test_a_script_that_takes_too_long_is_ended(script: Path) -> None:
    script.write_text("import time; time.sleep(60)")
    with pytest.raises(ChildFailedError, match="timed out") as failed:
        run_child(script, seconds=0.1)
    assert failed.value.timed_out
