"""The http engine's devices, as the simulation has them: processes, each of which is one device after another."""

from __future__ import annotations

import json
import secrets
import socket
from collections import deque
from multiprocessing import connection

from edgefl.atomic import write_text
from edgefl.errors import RuntimeFailure
from edgefl.hashing import sha256
from edgefl_simulation.engines.http_messages import Answer, Ask, Begin, Broken
from edgefl_simulation.engines.own_process import SINGLE_THREADED, OwnProcess

__all__ = ["HttpFleet"]


class _Process:
    """A process, and the device that is at work in it.

    Attributes:
        connection: to it.
        busy: it was told to do something; at first to begin.
    """

    def __init__(self, begin: Begin) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = OwnProcess(
                "A process with the simulation's devices",
                "http_devices",
                str(theirs.fileno()),
                descriptors=(theirs.fileno(),),
                environment=SINGLE_THREADED,
            )
        self.connection = connection.Connection(ours.detach())
        self.busy = True
        self.connection.send(begin)

    def death(self) -> RuntimeFailure:
        """Says how it ended."""
        return self._process.death()

    def close(self) -> None:
        """Ends it."""
        self.connection.close()
        self._process.close()


class HttpFleet:
    """Real devices in a few processes.

    Args:
        begin: what they have in common.
        processes: how many.

    Raises:
        RuntimeFailure: a process dies.
        EdgeflError: a table cannot be read.
    """

    def __init__(self, begin: Begin, processes: int) -> None:
        self._states = begin.states
        self._queue: deque[Ask] = deque()
        self._processes: list[_Process] = []
        try:
            for _ in range(processes):
                self._processes.append(_Process(begin))
        except BaseException:
            self.close()
            raise

    def ask(self, ask: Ask) -> None:
        """Has a device ask for work, as soon as a process has time for it."""
        identity = self._states / ask.device / "identity.json"
        if not identity.exists():
            identity.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            document = {"device_id": ask.device, "secret": secrets.token_hex(32)}
            write_text(identity, json.dumps(document), mode=0o600)
        self._queue.append(ask)
        self._tell()

    def answers(self, seconds: float) -> list[Answer]:
        """Waits for devices that are through.

        Args:
            seconds: the longest.

        Raises:
            RuntimeFailure: a process has died.
            EdgeflError: a device cannot go on.
        """
        busy = {each.connection: each for each in self._processes if each.busy}
        found = []
        for ready in connection.wait(list(busy), seconds):
            process = busy[ready]  # type: ignore[index]
            try:
                answer = process.connection.recv()
            except (EOFError, ConnectionError):
                raise process.death() from None
            process.busy = False
            if isinstance(answer, Broken):
                raise answer.error
            if isinstance(answer, Answer):
                found.append(answer)
        self._tell()
        return found

    def memory(self, device: str, run: str, task_id: str) -> bytes | None:
        """The memory that a device keeps at the end of a task, packed; None: it has not, or the server does not know.

        Args:
            device: its id.
            run: the run's.
            task_id: the task's.
        """
        folder = self._states / device
        try:
            found = (folder / "runs" / f"{run}.{sha256(task_id.encode())[:32]}.npz").read_bytes()
        except OSError:
            return None
        return None if (folder / "outcome.message").exists() else found

    def close(self) -> None:
        """Ends all processes."""
        for process in self._processes:
            process.close()
        self._processes.clear()

    def _tell(self) -> None:
        for process in self._processes:
            if self._queue and not process.busy:
                process.busy = True
                try:
                    process.connection.send(self._queue.popleft())
                except ConnectionError:
                    raise process.death() from None
