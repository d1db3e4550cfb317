"""The web application: routes, limits, and the loop that closes and folds rounds."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool

from edgefl.errors import EdgeflError
from edgefl.hashing import sha256
from edgefl.version import __version__
from edgefl_server.http import device_routes, errors, operator_routes
from edgefl_server.http.body_limit import BodyLimit
from edgefl_server.http.context import Context
from edgefl_server.storage import ServerState, close_due_rounds, fold_pending, sweep_uploads

__all__ = ["MAX_MODEL_BYTES", "MAX_OUTCOME_BYTES", "create_app"]

MAX_OUTCOME_BYTES = 256 << 20
MAX_MODEL_BYTES = 1 << 30
_MAX_CONTROL_BYTES = 64 << 10
_CLOCK_SECONDS = 1.0
"""How often deadlines are looked at."""
_SWEEP_SECONDS = 60.0
"""How often uploads that broke off are looked at."""
_RETRY_SECONDS = 5.0
"""The pause after folding failed, for example on a full disk."""

_log = logging.getLogger(__name__)


def create_app(
    state: ServerState,
    admin_token: str,
    *,
    max_outcome_bytes: int = MAX_OUTCOME_BYTES,
    max_model_bytes: int = MAX_MODEL_BYTES,
) -> FastAPI:
    """The application of one server.

    Args:
        state: what is on disk; stays open after the application stops.
        admin_token: what operators show.
        max_outcome_bytes: larger outcomes get 413.
        max_model_bytes: larger model files get 413.
    """
    context = Context(state, sha256(admin_token.encode()), max_outcome_bytes, max_model_bytes)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        context.work.attach()
        context.folding.attach()
        task = asyncio.create_task(_advance_rounds(context))
        sweeping = asyncio.create_task(_sweep_uploads(context))
        yield
        context.work.stop()
        context.folding.stop()
        sweeping.cancel()
        with suppress(asyncio.CancelledError):
            await task
        with suppress(asyncio.CancelledError):
            await sweeping

    app = FastAPI(
        title="edgefl server",
        version=__version__,
        summary="Hands out training tasks to devices and merges what they send back.",
        lifespan=lifespan,
        # The interactive pages would load scripts from elsewhere; /openapi.json is enough for tools.
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.context = context
    app.include_router(device_routes.router)
    app.include_router(operator_routes.router)
    errors.install(app)

    def limit_of(method: str, path: str) -> int:
        if method == "PUT" and path.endswith("/outcome"):
            return max_outcome_bytes
        if method == "POST" and path == "/v1/runs":
            return max_model_bytes
        return _MAX_CONTROL_BYTES

    app.add_middleware(BodyLimit, limit_of=limit_of)
    return app


async def _advance_rounds(context: Context) -> None:
    """Closes rounds at their deadlines and folds what is closed, one after the other, for ever.

    The first pass also folds what a killed server left behind.
    """
    while not context.folding.stopping:
        ticket = context.folding.ticket()
        pause = _CLOCK_SECONDS
        try:
            closed = await run_in_threadpool(close_due_rounds, context.state)
            if await run_in_threadpool(fold_pending, context.state) or closed:
                context.work.ring()
                continue
        except EdgeflError as error:
            _log.error("could not fold, trying again in %g s: %s", _RETRY_SECONDS, error)
            pause = _RETRY_SECONDS
        except Exception:
            _log.exception("could not fold, trying again in %g s", _RETRY_SECONDS)
            pause = _RETRY_SECONDS
        await context.folding.wait(ticket, pause)


async def _sweep_uploads(context: Context) -> None:
    """Deletes what has arrived in part and will not be wanted, for ever."""
    while True:
        try:
            await run_in_threadpool(sweep_uploads, context.state)
        except EdgeflError as error:
            _log.error("could not look for uploads that are not wanted any more: %s", error)
        await asyncio.sleep(_SWEEP_SECONDS)
