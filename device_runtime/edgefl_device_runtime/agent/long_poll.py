"""Asking for work, and how long the way to a server bears that nothing is said meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from edgefl.wire.messages import CONTENT_TYPE
from edgefl_device_runtime.agent.connection import Connection
from edgefl_device_runtime.agent.replies import NotReachedError, Reply

__all__ = ["LongPoll"]

_CUT = ("away", "status 504")
"""The looks of a poll that was cut while it waited: no answer at all, or a proxy's own after its time-out."""
_OF_A_CUT_ONE = 0.8
"""The next poll waits for so much of what the way bore."""
_GROWTH = 1.5
"""The way may be another one by now, so what it bears is found out anew."""


class LongPoll:
    """Asks for work; the server may take its time to answer, as long as the network bears it.

    Home routers, mobile networks and proxies cut connections on which nothing is said for some seconds. Whoever asks
    again for as long would never hear that there is no work, and take the server for away. So a poll that was cut
    while it waited is asked again at once, without waiting: only when that fails too is the server not reached.

    Args:
        connection: to the server.
        longest: most bytes of an answer.
        clock: in seconds; never set.
    """

    def __init__(self, connection: Connection, longest: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._connection, self._longest, self._clock = connection, longest, clock
        self._most = float("inf")

    def ask(self, document: Mapping[str, Any], wait: float) -> Reply:
        """Asks once, and once more without waiting where the wait was cut.

        Args:
            document: its body, without ``wait``.
            wait: seconds that the server may wait for work to come up, where the way to it bears so many.

        Raises:
            NotReachedError: the server is not there.
        """
        wait = min(wait, self._most)
        began = self._clock()
        try:
            reply = self._attempt(document, wait)
        except NotReachedError as error:
            if wait == 0 or error.kind not in _CUT:
                raise
            cut_after = self._clock() - began
            self._most = _OF_A_CUT_ONE * cut_after if cut_after < wait else wait / 2
            return self._attempt(document, 0.0)
        self._most = max(self._most, _GROWTH * wait, 1.0)
        return reply

    def _attempt(self, document: Mapping[str, Any], wait: float) -> Reply:
        return self._connection.attempt_json(
            "POST",
            "/v1/tasks/next",
            {**document, "wait": wait},
            wait=wait,
            longest=self._longest,
            shows=_answers_a_poll,
        )


def _answers_a_poll(reply: Reply) -> bool:
    return (reply.status == 200 and reply.content_type == CONTENT_TYPE) or (
        reply.status == 204 and reply.active_runs is not None
    )
