"""Sends an outcome over a network that is slow or breaks off: in pieces, and on from where the server has it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from urllib.parse import quote

from edgefl.hashing import sha256
from edgefl.wire.calls import DIGEST, LENGTH, OFFSET
from edgefl.wire.messages import CONTENT_TYPE
from edgefl.wire.refusals import Refusal
from edgefl_device_runtime.agent.connection import Connection
from edgefl_device_runtime.agent.replies import NotReachedError, Reply

__all__ = ["task_path", "upload"]


def task_path(task_id: str, what: str) -> str:
    """The path of a call about a task."""
    return f"/v1/tasks/{quote(task_id, safe='')}/{what}"


def upload(
    connection: Connection,
    task_id: str,
    message: bytes,
    *,
    begun: bool = False,
    check: Callable[[], None] = lambda: None,
    told: Callable[[int, int], None] = lambda done, size: None,
    patience: float | None = None,
) -> Reply:
    """Sends an outcome until the server has answered.

    Args:
        connection: to the server.
        task_id: of the outcome.
        message: the outcome's bytes.
        begun: whether an earlier process may have sent a part of it.
        check: called before every attempt and every piece; may raise to end it.
        told: called before every piece with how many bytes are sent, and of how many.
        patience: None; or one attempt only, with this instead of the settings' waiting times.

    Returns:
        What the server says to the whole outcome.

    Raises:
        AuthenticationError: the server does not accept this device.
        NotReachedError: the one attempt did not reach the server.
    """
    sending = _Upload(connection, task_id, message, begun, check, told, patience)
    return connection.patiently(sending) if patience is None else sending()


class _Upload:
    """One attempt after another; each begins where the server says that it has everything before."""

    def __init__(
        self,
        connection: Connection,
        task_id: str,
        message: bytes,
        begun: bool,
        check: Callable[[], None],
        told: Callable[[int, int], None],
        patience: float | None,
    ) -> None:
        self._connection = connection
        self._task_id = task_id
        self._path = task_path(task_id, "outcome")
        self._message = memoryview(message)
        self._digest = sha256(message)
        self._ask = begun
        self._check = check
        self._told = told
        self._patience = patience
        self._offset = 0

    def __call__(self) -> Reply:
        self._check()
        before = self._offset
        if self._ask:
            asked = self._where()
            if asked.code == Refusal.UNKNOWN_TASK:
                return asked  # so it would say to the whole
            # Or a server that keeps no parts, or one that will say to the whole what it has against it.
            received = int(asked.document["received"]) if asked.status == 200 else 0
            self._offset = min(received, len(self._message))
        self._ask = True
        try:
            reply = self._put()
        except NotReachedError as error:
            # What the server had before this attempt was more than before the last one: the line works.
            error.progress = error.progress or self._offset > before
            raise
        if reply.status == 409 and reply.code in (Refusal.WRONG_OFFSET, Refusal.SUPERSEDED):
            raise NotReachedError(
                reply.code,
                f"{self._connection.server} has another part of the outcome than expected ({reply.code}).",
                progress=self._offset > before,
            )
        return reply

    def _put(self) -> Reply:
        rest = self._message[self._offset :]
        headers = {
            DIGEST: self._digest,
            LENGTH: str(len(self._message)),
            OFFSET: str(self._offset),
        }
        settings = self._connection.settings
        sent = itertools.count(self._offset, settings.send_piece)

        def before_a_piece() -> None:
            self._check()
            self._told(next(sent), len(self._message))

        return self._connection.attempt(
            "PUT",
            self._path,
            body=rest,
            content_type=CONTENT_TYPE,
            headers=headers,
            shows=lambda reply: reply.status == 202 and reply.document.get("task_id") == self._task_id,
            # The last piece being handed over does not mean that the first one has arrived.
            wait=min(len(rest), settings.buffered) / settings.slowest,
            patience=self._patience,
            check=before_a_piece,
        )

    def _where(self) -> Reply:
        """Asks from which byte on the server lacks the outcome."""
        return self._connection.attempt(
            "GET",
            f"{self._path}?digest={self._digest}",
            shows=lambda reply: reply.status == 200 and _is_offset(reply.document.get("received")),
            patience=self._patience,
        )


def _is_offset(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
