"""Which of the Pythons on a machine `make` takes; each is stood in for by a program that fits or does not."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

CHOOSE = Path(__file__).parents[2] / ".ci" / "python"


def chosen(folder: Path, **fits: bool) -> subprocess.CompletedProcess[str]:
    for name, does in fits.items():
        program = folder / name.replace("_", ".")
        # As pyenv's stand-in for a version that is not chosen: there, and of no use.
        program.write_text(f"#!/bin/sh\nexit {0 if does else 127}\n")
        program.chmod(0o755)
    command = ["/bin/bash", CHOOSE]
    return subprocess.run(command, env={"PATH": str(folder)}, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("fits", "expected"),
    [
        ({"python3_11": True, "python3_13": True, "python3": True}, "python3.11"),
        ({"python3_11": False, "python3_12": True, "python3_13": True}, "python3.13"),
        ({"python3_12": True, "python3": True}, "python3.12"),
        ({"python3": True}, "python3"),
    ],
)
def test_the_one_with_both_runtimes_is_taken_then_the_newest_that_works(
    tmp_path: Path, fits: dict[str, bool], expected: str
) -> None:
    assert chosen(tmp_path, **fits).stdout == f"{tmp_path / expected}\n"


def test_where_none_fits_it_is_said_which_would(tmp_path: Path) -> None:
    done = chosen(tmp_path, python3_11=False, python3=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "Python 3.11, 3.12 or 3.13 with its venv module" in done.stderr
    assert "make PYTHON=" in done.stderr
