"""Sends alarms to an address: tried again for an hour, few at a time, and nothing ever waits for it."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import anyio
import urllib3
from anyio.to_thread import run_sync

from edgefl.errors import InvalidSettingError
from edgefl_server.urls import is_http_url

__all__ = ["Webhook", "check_webhook", "post"]

_log = logging.getLogger(__name__)
_MOST_KEPT = 100
"""The oldest of more that cannot be sent are dropped, and the log says so."""
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 5.0, 300.0
_GIVEN_UP_SECONDS = 3600.0
_TIMEOUT_SECONDS = 10.0


def check_webhook(url: str) -> str:
    """The address, if it may be one.

    Raises:
        InvalidSettingError: it is none.
    """
    if not is_http_url(url):  # it may hold a secret, and is not repeated
        raise InvalidSettingError("--alarm-webhook expects an address that begins with http:// or https://.")
    return url


@dataclass(frozen=True)
class _Kept:
    document: Mapping[str, Any]
    since: float


class Webhook:
    """The alarms that are to be sent.

    Args:
        send: sends one, in a thread; raises where it was not taken.
        clock: in seconds; never set.
        sleep: waits so many seconds.
    """

    def __init__(
        self,
        send: Callable[[Mapping[str, Any]], None],
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._send, self._clock, self._sleep = send, clock, sleep
        self._kept: deque[_Kept] = deque()
        self._new = asyncio.Event()
        self._thread = anyio.CapacityLimiter(1)  # of its own: those that answer requests are not for it

    def put(self, document: Mapping[str, Any]) -> None:
        """Sends it as soon as possible; returns at once."""
        if len(self._kept) >= _MOST_KEPT:
            self._kept.popleft()
            _log.warning("an alarm was dropped: %d wait to be sent", _MOST_KEPT)
        self._kept.append(_Kept(document, self._clock()))
        self._new.set()

    async def run(self) -> None:
        """Sends what is put, in order, until it is cancelled."""
        pause = _FIRST_PAUSE_SECONDS
        while True:
            if not self._kept:
                self._new.clear()
                await self._new.wait()
            first = self._kept[0]
            document = first.document
            try:
                await run_sync(lambda document=document: self._send(document), limiter=self._thread)  # type: ignore[misc]
            except Exception as error:
                waited = self._clock() - first.since
                if waited < _GIVEN_UP_SECONDS:
                    # Not its text: that names the address, which may hold a secret.
                    _log.warning("could not send an alarm, will try again: %s", type(error).__name__)
                    await self._sleep(pause)
                    pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
                    continue
                _log.error("gave up an alarm that nobody took for an hour: %s", document.get("message"))
            pause = _FIRST_PAUSE_SECONDS
            if self._kept and self._kept[0] is first:  # else it was dropped meanwhile
                self._kept.popleft()


def post(url: str) -> Callable[[Mapping[str, Any]], None]:
    """Makes what sends a document to an address as JSON; any answer of 200 to 299 says that it was taken.

    Args:
        url: see `check_webhook`.
    """
    pool = urllib3.PoolManager(timeout=_TIMEOUT_SECONDS, retries=False)

    def send(document: Mapping[str, Any]) -> None:
        body = json.dumps(document).encode()
        headers = {"Content-Type": "application/json"}
        answer = pool.request("POST", url, body=body, headers=headers, redirect=False, preload_content=False)
        answer.close()  # what else it says is not read: it may never end
        if not 200 <= answer.status < 300:
            raise OSError(f"answered with {answer.status}")

    return send
