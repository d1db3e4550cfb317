"""Tells the server that this device is still at work, from a thread beside the training."""

from __future__ import annotations

import threading
from types import TracebackType

from edgefl.errors import EdgeflError
from edgefl_device_runtime.agent.connection import Connection

__all__ = ["Lease"]


class Lease:
    """Renews a task's lease while the ``with`` block runs.

    Args:
        connection: to the server.
        path: what to POST to.

    Attributes:
        lost: set when the server says that the task is no longer wanted.
    """

    def __init__(self, connection: Connection, path: str) -> None:
        self.lost = threading.Event()
        self._ended = threading.Event()
        self._connection = connection
        self._path = path

    def __enter__(self) -> Lease:
        # A daemon: a request that hangs must not keep the process alive.
        threading.Thread(target=self._renew, name="lease", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()

    def _renew(self) -> None:
        settings = self._connection.settings
        pause = settings.first_lease_renewal
        while not self._ended.wait(pause):
            try:
                reply = self._connection.attempt("POST", self._path)
            except EdgeflError:
                continue  # the network is away: training goes on, the next renewal may get through
            if reply.status in (403, 404, 410):
                self.lost.set()
                return
            lease = reply.json().get("lease_seconds")
            if reply.status == 200 and isinstance(lease, (int, float)) and lease > 0:
                pause = max(settings.first_lease_renewal, settings.lease_share * lease)
