"""Runs a command to its end, line by line."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from examples.fleet import ProcessFailedError

__all__ = ["command"]

_ROOT = Path(__file__).resolve().parents[2]
_LAST_LINES = 5


def command(*arguments: str | Path, on_line: Callable[[str], None] = lambda line: None) -> list[str]:
    """Runs a command that finds the examples as modules, and returns the lines that it prints.

    Args:
        arguments: the program first.
        on_line: told each line as it comes.

    Raises:
        ProcessFailedError: it exits with another code than 0; the message ends with what it said last.
    """
    paths = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH", "")]))
    environment = {**os.environ, "PYTHONPATH": paths, "TF_CPP_MIN_LOG_LEVEL": "3"}
    lines = []
    # A file, for a pipe that nobody reads while the lines are read could fill up.
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(
            [*map(str, arguments)], stdout=subprocess.PIPE, stderr=said, text=True, env=environment
        )
        assert process.stdout is not None
        try:
            for line in map(str.rstrip, process.stdout):
                lines.append(line)
                on_line(line)
            code = process.wait()
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        said.seek(0)
        last = said.read().splitlines()[-_LAST_LINES:]
    if code != 0:
        raise ProcessFailedError(f"`{' '.join(map(str, arguments))}` exited with code {code}: {' / '.join(last)}")
    return lines
