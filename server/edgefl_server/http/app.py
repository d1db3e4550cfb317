"""The web application: routes and limits."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import cache
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from edgefl.credentials import check_token
from edgefl.hashing import sha256
from edgefl.version import __version__
from edgefl_server.http import device_routes, errors, fleet_routes, health, operator_routes, people_routes
from edgefl_server.http.admission import Admission
from edgefl_server.http.advancing import advance
from edgefl_server.http.alarming import raise_alarms
from edgefl_server.http.body_limit import MAX_CONTROL_BYTES, BodyLimit
from edgefl_server.http.central import evaluate_centrally
from edgefl_server.http.context import Context
from edgefl_server.http.direct_calls import DirectCalls
from edgefl_server.http.rates import Network, RateLimit
from edgefl_server.storage import ServerState

__all__ = ["MAX_MODEL_BYTES", "MAX_OUTCOME_BYTES", "create_app"]

MAX_OUTCOME_BYTES = 256 << 20
MAX_MODEL_BYTES = 1 << 30


def create_app(
    state: ServerState,
    admin_token: str,
    *,
    max_outcome_bytes: int = MAX_OUTCOME_BYTES,
    max_model_bytes: int = MAX_MODEL_BYTES,
    pins: str = "",
    device_rate: int = 0,
    address_rate: int = 0,
    trusted_proxies: Sequence[Network] = (),
    metrics_public: bool = False,
    alarm_webhook: str = "",
) -> FastAPI:
    """The application of one server.

    Args:
        state: what is on disk; stays open after the application stops.
        admin_token: what operators show.
        max_outcome_bytes: larger outcomes get 413.
        max_model_bytes: larger model files get 413.
        pins: of this server's certificates, as `Address.announcement` says; empty: devices are told none.
        device_rate: requests in a minute, beyond which a device gets 429; 0: any number.
        address_rate: the same for requests that are refused to an address.
        trusted_proxies: whose ``X-Forwarded-For`` says which address that is.
        metrics_public: everybody may read /metrics, not only operators.
        alarm_webhook: where alarms are sent; empty: nowhere.

    Raises:
        InvalidSettingError: the token is empty or can be guessed.
    """
    token = check_token(admin_token, "create_app")
    context = Context(state, sha256(token.encode()), max_outcome_bytes, max_model_bytes, pins)
    context.device_rate, context.address_rate = RateLimit(device_rate), RateLimit(address_rate)
    context.trusted_proxies = trusted_proxies
    context.metrics_public = metrics_public

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        context.work.attach()
        context.folding.attach()
        task = asyncio.create_task(advance(context))
        beside = [asyncio.create_task(evaluate_centrally(context))]
        if alarm_webhook:
            beside.append(asyncio.create_task(raise_alarms(context, alarm_webhook)))
        yield
        for each in beside:
            each.cancel()
        context.work.stop()
        context.folding.stop()
        for each in (task, *beside):
            with suppress(asyncio.CancelledError):
                await each

    app = _Application(
        title="edgefl server",
        version=__version__,
        summary="Hands out training tasks to devices and merges what they send back.",
        lifespan=lifespan,
        # The interactive pages would load scripts from elsewhere; /openapi.json is enough for tools.
        docs_url=None,
        openapi_url=None,  # anybody may ask: answered from bytes, below
        redoc_url=None,
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.context = context
    app.include_router(device_routes.router)
    app.include_router(operator_routes.router)
    app.include_router(people_routes.router)
    app.include_router(fleet_routes.router)
    app.include_router(health.router)
    errors.install(app)

    @cache
    def described() -> bytes:
        return json.dumps(app.openapi(), separators=(",", ":")).encode()

    async def describe(request: Request) -> Response:
        return Response(described(), media_type="application/json")

    app.add_route("/openapi.json", describe, include_in_schema=False)

    def limit_of(method: str, path: str) -> int:
        if method == "PUT" and path.endswith("/outcome"):
            return max_outcome_bytes
        if method == "POST" and path in ("/v1/runs", "/v1/data", "/v1/initial-weights", "/new"):
            return max_model_bytes
        return MAX_CONTROL_BYTES

    app.front = Admission(BodyLimit(DirectCalls(app.front, context), limit_of), context)
    return app


class _Application(FastAPI):
    """FastAPI, and before it what every request passes and most end in: FastAPI's own way there is long."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.front: ASGIApp = super().__call__

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        scope["app"] = self
        await self.front(scope, receive, send)
