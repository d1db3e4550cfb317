"""A process of the simulation's beside its own one: a worker, devices, or a server."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import IO

from edgefl.errors import RuntimeFailure

__all__ = ["SINGLE_THREADED", "OwnProcess"]

SINGLE_THREADED = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
"""The environment of a process that there is one of for each core: threads would only wait for each other."""

_OF_NO_IMPORTANCE = "INFO: "
"""With that the interpreters begin lines that tell of their delegates."""


class OwnProcess:
    """A module of this package that runs as a process, with a log of what it prints.

    Args:
        what: it is, as an error names it: a worker process.
        module: in `edgefl_simulation.engines`, by its name.
        arguments: of its command line.
        descriptors: of files that it inherits.
        environment: the part of it that differs from this process's.
        patience: seconds that it may take to end once nobody tells it anything any more.
        piped: its standard input and output are pipes, and only what it says beside them is in the log.
    """

    def __init__(
        self,
        what: str,
        module: str,
        *arguments: str,
        descriptors: Collection[int] = (),
        environment: Mapping[str, str] = MappingProxyType({}),
        patience: float = 10.0,
        piped: bool = False,
    ) -> None:
        self._what, self._patience = what, patience
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the process
        path = os.pathsep.join(filter(None, sys.path))
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"edgefl_simulation.engines.{module}", *arguments],
            stdin=subprocess.PIPE if piped else subprocess.DEVNULL,
            stdout=subprocess.PIPE if piped else self._log,
            stderr=self._log,
            pass_fds=tuple(descriptors),
            env={**os.environ, **environment, "PYTHONPATH": path},
        )
        self.pid = self._process.pid

    def line(self) -> bytes:
        """The next line of its standard output, which is a pipe; empty: it said nothing more."""
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def death(self) -> RuntimeFailure:
        """Says how it ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(self._patience)
        self._log.seek(0)
        said = self._log.read().decode(errors="replace").strip().splitlines()
        # Whoever is killed has no time for a last word: what it said before is of something else.
        killed = self._process.returncode == -signal.SIGKILL
        telling = [line for line in said if not killed and not line.startswith(_OF_NO_IMPORTANCE)]
        last = f": {telling[-1]}" if telling else "."
        return RuntimeFailure(
            f"{self._what} ended with {self._process.returncode}{last}",
            hint="-9 is often a lack of memory, of which fewer workers take less. What has a folder can be resumed.",
        )

    def close(self) -> None:
        """Ends it; whoever tells it things tells it nothing any more."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            self._process.wait(self._patience)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()
