"""Puts the dashboard in front of a server's application."""

from __future__ import annotations

import hashlib
import hmac
from pathlib import PurePosixPath
from typing import Annotated

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi import Path as InPath

from edgefl.wire.refusals import Refusal
from edgefl_server.dashboard import acts, pages, signing_in
from edgefl_server.dashboard.doors import Page
from edgefl_server.dashboard.sessions import Sessions
from edgefl_server.dashboard.static_files import read_static
from edgefl_server.http.context import Context
from edgefl_server.http.errors import RequestError

__all__ = ["SESSION_SECONDS", "add_dashboard"]

SESSION_SECONDS = 12 * 3600.0
"""A working day."""

_statics = APIRouter(route_class=Page, include_in_schema=False)


@_statics.get("/static/{name}")
async def get_static(name: Annotated[str, InPath(max_length=64)], request: Request) -> Response:
    """A script or a style: anybody may see what the wheel holds."""
    found = read_static(str(PurePosixPath(name).name))
    if found is None:
        raise RequestError(404, Refusal.NOT_FOUND, "There is no such file.")
    # Its address changes with it, see `link`.
    kept = {"Cache-Control": "public, max-age=31536000, immutable"}
    return Response(found[0], media_type=found[1], headers=kept)


def add_dashboard(app: FastAPI, session_seconds: float = SESSION_SECONDS) -> None:
    """Adds the pages to an application that `create_app` made.

    Args:
        app: the application.
        session_seconds: so long after signing in an operator has to do so again.
    """
    context: Context = app.state.context
    # Whoever has another token of operator.json has other sessions.
    secret = hmac.digest(bytes.fromhex(context.admin_token_hash), b"edgefl dashboard", hashlib.sha256)
    app.state.sessions = Sessions(secret, session_seconds)
    for router in (_statics, signing_in.router, pages.router, acts.router):
        app.include_router(router)
