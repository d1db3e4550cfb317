"""The calls that devices make in every round, answered past FastAPI: to find a route takes it longer than to answer.

They are described in `device_routes`, whose functions answer them here as well. Only what a call is given is read here,
and only if it looks as it should: everything else goes to FastAPI, which says what is wrong.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edgefl.errors import EdgeflError
from edgefl.wire.calls import DIGEST, LENGTH, OFFSET
from edgefl.wire.words import HASH, NAME, is_hash
from edgefl_server.http.body_limit import MAX_CONTROL_BYTES
from edgefl_server.http.context import Context, caller
from edgefl_server.http.device_routes import Poll, get_model, get_next_task, get_weights, put_outcome, renew
from edgefl_server.http.errors import RequestError, edgefl_error, request_error, unexpected
from edgefl_server.http.receiving import Announced
from edgefl_server.storage import DeviceRow

__all__ = ["DirectCalls"]

_Answer: TypeAlias = Callable[[DeviceRow], Awaitable[Response]]

_POLL = "/v1/tasks/next"
_BLOB = re.compile(f"/v1/(models|weights)/({HASH})")
_TASK = re.compile(f"/v1/tasks/({NAME})/(lease|outcome)")
_NUMBER = re.compile("[0-9]{1,15}")


class DirectCalls:
    """ASGI middleware: answers what devices call all the time, and passes everything else on.

    Args:
        app: answers the rest.
        context: the server.
    """

    def __init__(self, app: ASGIApp, context: Context) -> None:
        self._app, self._context = app, context

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers the request, or passes it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        if scope["path"] == _POLL and _is_short_json(request):
            try:
                body = await request.body()
            except ClientDisconnect:
                return
            answer, receive = self._poll(request, body), _again(body, receive)
        else:
            answer = self._call(request)
        if answer is None:
            await self._app(scope, receive, send)
            return
        try:
            response = await answer(await caller(request, self._context))
        except RequestError as error:
            response = await request_error(request, error)
        except EdgeflError as error:
            response = await edgefl_error(request, error)
        except Exception as error:
            await (await unexpected(request, error))(scope, receive, send)
            raise
        await response(scope, receive, send)

    def _poll(self, request: Request, body: bytes) -> _Answer | None:
        """Finds what answers a poll; None: FastAPI."""
        try:
            poll = Poll.model_validate(json.loads(body))
        except (ValueError, RecursionError):  # also what pydantic raises
            return None
        return lambda device: get_next_task(request, device, self._context, poll)

    def _call(self, request: Request) -> _Answer | None:
        """Finds what answers any other call; None: FastAPI."""
        method, path, context = request.scope["method"], request.scope["path"], self._context
        if method == "GET" and (blob := _BLOB.fullmatch(path)):
            get, digest = get_weights if blob[1] == "weights" else get_model, blob[2]
            return lambda device: get(digest, request, device, context)
        if (task := _TASK.fullmatch(path)) is None:
            return None
        task_id = task[1]
        if (method, task[2]) == ("POST", "lease"):
            return lambda device: renew(task_id, device, context)
        if (method, task[2]) == ("PUT", "outcome") and (announced := _announced(request)) is not None:
            return lambda device: put_outcome(task_id, request, device, context, announced)
        return None


def _is_short_json(request: Request) -> bool:
    """Whether it is a POST whose body is said to be JSON, and no longer than such a body may be."""
    headers, method = request.headers, request.scope["method"]
    length = headers.get("Content-Length", "")
    short = _NUMBER.fullmatch(length) is not None and int(length) <= MAX_CONTROL_BYTES
    return short and method == "POST" and headers.get("Content-Type") == "application/json"


def _announced(request: Request) -> Announced | None:
    """The announcement of an outcome; None: there is none, or not of the usual form."""
    headers = request.headers
    digest, length, offset = headers.get(DIGEST, ""), headers.get(LENGTH, ""), headers.get(OFFSET, "0")
    if not is_hash(digest) or not _NUMBER.fullmatch(length) or not _NUMBER.fullmatch(offset):
        return None
    found = Announced(digest, int(length), int(offset))
    return found if found.length >= 1 and found.offset <= found.length else None


def _again(body: bytes, receive: Receive) -> Receive:
    """Gives a body that was read to whoever asks next."""
    given = False

    async def receive_again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive_again
