"""Finds out who asks, from a request's header alone: strangers are answered before their body is read."""

from __future__ import annotations

import math
from collections import OrderedDict

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edgefl.errors import AuthenticationError, EdgeflError
from edgefl.hashing import sha256
from edgefl.wire.refusals import Refusal
from edgefl_server.http.connections import Place
from edgefl_server.http.context import Context, bearer
from edgefl_server.http.errors import RequestError, edgefl_error, request_error, retry_after, unexpected
from edgefl_server.http.rates import client_address
from edgefl_server.roles import Operator
from edgefl_server.storage import (
    DeviceRow,
    authenticate,
    check_invitation,
    has_form_of_credentials,
    has_form_of_invitation,
    has_form_of_key,
    unknown_device,
    wrong_token,
)

__all__ = ["Admission"]

_OF_DEVICES = ("/v1/tasks", "/v1/models", "/v1/weights")
_OF_OPERATORS = (
    "/v1/runs",
    "/v1/invitations",
    "/v1/data",
    "/v1/initial-weights",
    "/v1/operator",
    "/v1/operators",
    "/v1/audit",
    "/v1/devices",
)
_OF_THE_INVITED = ("POST", "/v1/devices")
_MOST_KNOWN = 20_000
"""Devices whose credentials are kept in memory, 2 kB each; more are read from the database."""
_CLOSE = (b"connection", b"close")


class Admission:
    """ASGI middleware: says on whose behalf a request comes, or refuses it with 401.

    What is found out is in the request's state, from where the dependencies of the routes take it: ``device``, or
    ``operator`` with name and role. The answer to a stranger is the last one of its connection.

    Args:
        app: what is protected.
        context: the server.
    """

    def __init__(self, app: ASGIApp, context: Context) -> None:
        self._app, self._context = app, context
        self._known: OrderedDict[str, DeviceRow] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on, with its sender."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        place: Place | None = scope.setdefault("state", {}).get("place")
        try:
            known = await self._admit(request)
        except RequestError as error:
            if error.status == 401:
                self._refused(scope)
            await (await request_error(request, error))(scope, receive, _ending(place, send))
        except EdgeflError as error:
            if isinstance(error, AuthenticationError):
                self._refused(scope)
            await (await edgefl_error(request, error))(scope, receive, _ending(place, send))
        except Exception as error:
            await (await unexpected(request, error))(scope, receive, _ending(place, send))
            raise
        else:
            await self._app(scope, receive, send if known else _ending(place, send))

    async def _admit(self, request: Request) -> bool:
        """False where anybody may ask.

        Raises:
            RequestError: neither the token of operator.json nor a key; or too many requests.
            AuthenticationError: neither a device's credentials, an invitation nor an operator's key that is good.
            StorageError: the database cannot be read.
        """
        path, state, token = request.scope["path"], request.scope["state"], bearer(request)
        address = state["address"] = client_address(request.scope, self._context.trusted_proxies)
        if (request.scope["method"], path) == _OF_THE_INVITED:
            if not has_form_of_invitation(token):
                raise wrong_token()
            self._require_patience(self._context.address_rate.wait(address))
            # An invitation is for many and may be lost: its holder keeps a stranger's place.
            await self._context.look_up(lambda: check_invitation(self._context.state, token))
            return True
        if _below(path, _OF_DEVICES):
            state["device"] = device = await self._device(token, address)
            self._require_patience(self._context.device_rate.take(device.device))
        elif _below(path, _OF_OPERATORS) or (path == "/metrics" and not self._context.metrics_public):
            state["operator"] = await self._operator(token, address)
        else:
            return False
        if (place := state.get("place")) is not None:
            place.trust()
        return True

    async def _device(self, token: str, address: str) -> DeviceRow:
        if not has_form_of_credentials(token):
            raise unknown_device()
        # Looked up by hash: what timing tells about a hash does not help to guess the secret.
        key = sha256(token.encode())
        known = self._known.get(key)
        if known is None:
            self._require_patience(self._context.address_rate.wait(address))
            device, _, secret = token.partition(".")
            known = await self._context.look_up(lambda: authenticate(self._context.state, device, secret))
            # Neither the secret nor the population of a device ever changes: one that polls need not be read each time.
            self._known[key] = known
            if len(self._known) > _MOST_KNOWN:
                self._known.popitem(last=False)
        self._known.move_to_end(key)
        return known

    def _refused(self, scope: Scope) -> None:
        path = scope["path"]
        kind = "operator" if _below(path, _OF_OPERATORS) or path == "/metrics" else "device"
        if (scope["method"], path) == _OF_THE_INVITED:
            kind = "invitation"
        self._context.refuse(kind, scope["state"]["address"])

    async def _operator(self, token: str, address: str) -> Operator:
        if not has_form_of_key(token):
            return self._context.operator(token)  # which reads nothing for it
        self._require_patience(self._context.address_rate.wait(address))
        # Each time anew: a key that was revoked is worthless at once.
        return await self._context.look_up(lambda: self._context.operator(token))

    def _require_patience(self, seconds: float) -> None:
        """Sends away whoever has asked too often, without a look into the database."""
        if seconds > 0:
            raise RequestError(
                429,
                Refusal.TOO_MANY,
                "So many requests in so short a time are not answered.",
                headers=retry_after(math.ceil(seconds), 2 * math.ceil(seconds)),
            )


def _below(path: str, places: tuple[str, ...]) -> bool:
    return any(path == place or path.startswith(f"{place}/") for place in places)


def _ending(place: Place | None, send: Send) -> Send:
    """Makes an answer the last one of its connection."""
    if place is not None:
        place.last = True

    async def ending_send(message: Message) -> None:
        # A client that is still sending would lose an answer after which the connection is closed at once: it is not
        # told, and the connection ends when its body does.
        if message["type"] == "http.response.start" and (place is None or (place.last and place.whole)):
            message["headers"] = [*(each for each in message.get("headers", ()) if each != _CLOSE), _CLOSE]
        await send(message)

    return ending_send
