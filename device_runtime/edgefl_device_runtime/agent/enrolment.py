"""Has a device taken in by a server: with the operator's token the first time, and by what it remembers later."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from edgefl.errors import AuthenticationError, InvalidSettingError
from edgefl.version import __version__
from edgefl.wire.messages import PROTOCOL_VERSION, TaskKind
from edgefl_device_runtime.agent.connection import Connection
from edgefl_device_runtime.agent.identity import Identity
from edgefl_device_runtime.agent.replies import NotReachedError, Reply
from edgefl_device_runtime.agent.state import StateFolder
from edgefl_device_runtime.tasks import SUPPORTED_KINDS, capabilities

__all__ = ["Enrolment", "device_capabilities"]

_ROUGHLY = 1 << 26
"""Bytes; the exact number would tell devices apart."""


def device_capabilities(
    runtimes: Sequence[str] | None, kinds: Collection[TaskKind] = SUPPORTED_KINDS
) -> dict[str, Any]:
    """Says what a server may want to know of this device before it hands out work.

    Nothing of it tells who owns the device, nor anything about the data.

    Args:
        runtimes: the interpreters that may be used; None: it is not known what trains.
        kinds: of tasks that its owner lets it do.
    """
    found: dict[str, Any] = {
        "edgefl": __version__,
        "protocol": PROTOCOL_VERSION,
        **capabilities(kinds),
        "machine": platform.machine(),
        "memory_bytes": -(-os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // _ROUGHLY) * _ROUGHLY,
    }
    if runtimes is not None:
        found["runtimes"] = list(runtimes)
    return found


class Enrolment:
    """A device's part in a population, which it asks a server for.

    Args:
        connection: to the server.
        state: where it is remembered.
        identity: the device's.
        where: ``server``, ``population``, ``certificate_pin`` and ``public_key_pin``.
        token: from the operator; None: the device has taken part before.
        capabilities: what the server is told that this device can do.

    Attributes:
        complete: whether this process has seen to it.
        capabilities: as given.
        untold: whether the server is still to be told them: without a token nobody enrols again, and this may be
            another edgefl than the one that did.
    """

    def __init__(
        self,
        connection: Connection,
        state: StateFolder,
        identity: Identity,
        where: Mapping[str, Any],
        token: str | None,
        capabilities: Mapping[str, Any],
    ) -> None:
        self.complete = False
        self.capabilities = dict(capabilities)
        self.untold = False
        self._connection = connection
        self._state = state
        self._identity = identity
        self._where = dict(where)
        self._token = token
        self._first_contact = state.enrolment() != self._where

    @property
    def can_repeat(self) -> bool:
        """Whether a server that has lost its memory of this device could take it in again."""
        return self._token is not None and self.complete

    def enrol(self) -> None:
        """Asks to be taken in, unless there is no token to do so with.

        Raises:
            AuthenticationError: the server does not take this device in.
            InvalidSettingError: the device has neither a token nor taken part before.
            StorageError: it cannot be remembered.
        """
        if self._token is None:
            if self._state.enrolment().get("server") is None:
                raise InvalidSettingError(
                    "This device has not taken part before, and got neither an invitation nor a token.",
                    hint="Ask the operator for an invitation (`edgefl server invite`), or set EDGEFL_TOKEN.",
                )
            self.complete, self.untold = True, True
            return
        reply = self.patiently(self._ask_to_take_part)
        if reply.status in (403, 409):
            raise AuthenticationError(
                f"{self._connection.server} does not take this device in: {reply.message}",
                hint=reply.hint or "Ask the operator for a new invitation.",
            )
        if self._state.enrolment() != self._where:
            self._state.remember_enrolment(self._where)
        self.complete = True

    def patiently(self, attempt: Callable[[], Reply]) -> Reply:
        """Tries until the server is reached; at the very first contact another certificate than expected is an error.

        Raises:
            AuthenticationError: see `Connection.patiently`.
        """
        reply = self._connection.patiently(attempt, certain=self._first_contact)
        self._first_contact = False
        return reply

    def _ask_to_take_part(self) -> Reply:
        reply = self._connection.attempt_json(
            "POST",
            "/v1/devices",
            {
                "device_id": self._identity.device_id,
                "secret_hash": self._identity.secret_hash,
                "population": self._where["population"],
                "capabilities": self.capabilities,
            },
            authorization=f"Bearer {self._token}",
            shows=lambda reply: reply.document.get("device_id") == self._identity.device_id,
        )
        if reply.status in (200, 201, 403, 409):
            return reply
        raise NotReachedError(
            f"enrol {reply.status}", f"{self._connection.server} did not take this device in: {reply.message}"
        )
