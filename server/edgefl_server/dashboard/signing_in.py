"""Signing in with an operator's key, and out."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse

from edgefl.errors import AuthenticationError
from edgefl_server.dashboard.doors import Page, SignedIn, form_of, own_path, require_own_page, token_in, visitor
from edgefl_server.dashboard.rendering import page
from edgefl_server.dashboard.sessions import Sessions
from edgefl_server.http.context import Shared
from edgefl_server.http.errors import RequestError

__all__ = ["router"]

router = APIRouter(route_class=Page, include_in_schema=False)

Next = Annotated[str, Query(max_length=500)]


@router.get("/sign-in")
async def get_sign_in(request: Request, next: Next = "/") -> Response:
    """The page that asks for a key."""
    if await visitor(request) is not None:
        return RedirectResponse(own_path(next), 303)
    return page("sign_in", {"next": own_path(next), "why": ""})


@router.post("/sign-in")
async def post_sign_in(request: Request, context: Shared) -> Response:
    """Begins a session for whoever has a key."""
    require_own_page(request, None, "")
    form = await form_of(request)
    sessions: Sessions = request.app.state.sessions
    where = own_path(form.get("next", "/"))
    address = request.scope["state"].get("address", "")
    if context.address_rate.wait(address) > 0:
        why = "So many wrong keys came from this address that no more are looked at for a while."
        return page("sign_in", {"next": where, "why": why}, 429)
    try:
        operator = await context.look_up(lambda: context.operator(form.get("key", "").strip()))
    except (RequestError, AuthenticationError) as error:
        context.refuse("operator", address)
        return page("sign_in", {"next": where, "why": error.message}, 401)
    answer = RedirectResponse(where, 303)
    secure = request.url.scheme == "https" or request.headers.get("X-Forwarded-Proto", "") == "https"
    answer.set_cookie(
        sessions.cookie,
        sessions.begin(operator.name, context.state.date()),
        max_age=int(sessions.seconds),
        path="/",
        secure=secure,
        httponly=True,
        samesite="strict",
    )
    return answer


@router.post("/sign-out")
async def post_sign_out(request: Request, who: SignedIn, context: Shared) -> Response:
    """Ends the session, also for a copy of its cookie."""
    require_own_page(request, who, token_in(request, await form_of(request)))
    sessions: Sessions = request.app.state.sessions
    sessions.end(who.session, context.state.date())
    answer = RedirectResponse("/sign-in", 303)
    answer.delete_cookie(sessions.cookie, path="/")
    return answer
