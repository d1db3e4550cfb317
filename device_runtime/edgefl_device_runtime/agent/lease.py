"""Tells the server that this device is still at work, from a thread beside the training and the sending."""

from __future__ import annotations

import contextlib
import threading
from types import TracebackType

from edgefl_device_runtime.agent.connection import Connection
from edgefl_device_runtime.agent.replies import GONE, AbandonedError
from edgefl_device_runtime.agent.uploads import task_path

__all__ = ["AbandonedError", "Lease"]


class Lease:
    """Renews a task's lease while the ``with`` block runs.

    Args:
        connection: to the server.
        task_id: whose lease it is.

    Attributes:
        lost: set when the server says that the task is no longer wanted.
    """

    def __init__(self, connection: Connection, task_id: str) -> None:
        self.lost = threading.Event()
        self._ended = threading.Event()
        self._connection = connection
        self._path = task_path(task_id, "lease")

    def __enter__(self) -> Lease:
        # A daemon: a request that hangs must not keep the process alive.
        threading.Thread(target=self._renew, name="lease", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()

    def check(self) -> None:
        """Does nothing as long as the task is wanted.

        Raises:
            AbandonedError: it no longer is.
        """
        if self.lost.is_set():
            raise AbandonedError

    def _renew(self) -> None:
        settings = self._connection.settings
        pause = settings.first_lease_renewal
        while not self._ended.wait(pause):
            reply = None
            # Not reached, or whatever else: the work goes on, and the next renewal may get through. Without this thread
            # the server would give a task that is being done to another device.
            with contextlib.suppress(Exception):
                reply = self._connection.attempt(
                    "POST", self._path, shows=lambda reply: reply.lease_seconds is not None
                )
            if reply is None:
                continue
            if reply.status in GONE:
                self.lost.set()
                return
            lease = reply.lease_seconds
            if lease is not None:
                # Event.wait takes no longer time than the platform can count.
                pause = min(max(settings.first_lease_renewal, settings.lease_share * lease), settings.longest_rest)
