"""Scripts of edgefl's that run an interpreter in a process of their own: what it does there, it does to nobody else.

A kernel that dies takes its process with it, and two interpreters, or one and TensorFlow, may not bear each other.
"""

from __future__ import annotations

import os
from typing import Any

__all__ = ["ChildFailedError", "run_child"]


class ChildFailedError(Exception):
    """A child process did not come to its end.

    Attributes:
        timed_out: whether it took too long, and was killed for it.
        returncode: its exit code; None when it timed out.
        killed_by: the name of the signal that ended it, else empty.
        stderr: what it said.
        last_line: the last line of that, where Python says what went wrong; empty if it said nothing.
    """

    def __init__(self, returncode: int | None, stderr: str = "") -> None:
        import signal

        self.timed_out = returncode is None
        self.returncode = returncode
        self.killed_by = "" if returncode is None or returncode >= 0 else signal.Signals(-returncode).name
        self.stderr = stderr
        lines = [line.strip() for line in stderr.splitlines() if line.strip()]
        self.last_line = lines[-1] if lines else ""
        super().__init__(self.killed_by or self.last_line or ("timed out" if self.timed_out else "no message"))


def run_child(
    script: str | os.PathLike[str], *arguments: str | os.PathLike[str], seconds: float, job: Any = None
) -> str:
    """Runs a Python script by path.

    Args:
        script: which imports no more than it needs.
        arguments: of its command line.
        seconds: that it may take.
        job: what it reads from standard input, as JSON; None: nothing.

    Returns:
        Its standard output.

    Raises:
        ChildFailedError: it took longer, was killed, or ended with another exit code than 0.
    """
    import json
    import subprocess  # half a megabyte, which few processes need
    import sys

    command = [sys.executable, *(os.fspath(each) for each in (script, *arguments))]
    given = "" if job is None else json.dumps(job)
    try:
        done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        raise ChildFailedError(None) from None
    if done.returncode:
        raise ChildFailedError(done.returncode, done.stderr)
    return done.stdout
