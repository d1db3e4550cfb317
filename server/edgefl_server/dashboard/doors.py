"""The doors of the dashboard: sessions of operators, and what a form has to carry."""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable, Coroutine
from typing import Annotated, Any
from urllib.parse import parse_qsl, quote

from fastapi import Depends, Request
from fastapi.responses import RedirectResponse, Response
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool

from edgefl.errors import EdgeflError
from edgefl.wire.refusals import Refusal
from edgefl_server.dashboard.rendering import page, secured
from edgefl_server.dashboard.sessions import Session, Sessions, is_own_page
from edgefl_server.http.context import Context, require
from edgefl_server.http.errors import RequestError, edgefl_error, request_error
from edgefl_server.roles import Operator, Right
from edgefl_server.storage import operator_named

__all__ = ["CSRF", "Page", "SignedIn", "Visitor", "form_of", "own_path", "require_own_page", "visitor"]

CSRF = "X-EdgeFL-Form"
"""The header in which a script sends what a form has in a field: the session's token."""
_FIELD = "form"


class Visitor:
    """An operator who has signed in.

    Args:
        session: of the browser.
        operator: name and role as they are now.
        context: the server.
    """

    def __init__(self, session: Session, operator: Operator, context: Context) -> None:
        self.session, self.operator, self._context = session, operator, context

    def shown(self) -> dict[str, Any]:
        """Everything that a page is told of its visitor."""
        return {
            "operator": self.operator,
            "may_run": self.operator.may(Right.RUN),
            "form_token": self.session.token,
        }

    def require(self, right: Right) -> None:
        """Refuses who may not do something.

        Raises:
            RequestError: 403.
        """
        require(self._context, self.operator, right)


class SignInNeededError(Exception):
    """Nobody is signed in, or the session is over."""


async def visitor(request: Request) -> Visitor | None:
    """The operator who is signed in; None: nobody. Its connection keeps its place as that of a command does."""
    sessions: Sessions = request.app.state.sessions
    context: Context = request.app.state.context
    session = sessions.read(request.cookies.get(sessions.cookie, ""), context.state.date())
    if session is None:
        return None
    # Looked up each time: a key that was revoked ends its sessions at once.
    operator = await run_in_threadpool(operator_named, context.state, session.name)
    if operator is None:
        return None
    request.scope["state"]["operator"] = operator
    if (place := request.scope["state"].get("place")) is not None:
        place.trust()
    return Visitor(session, operator, context)


async def _signed_in(request: Request) -> Visitor:
    found = await visitor(request)
    if found is None:
        raise SignInNeededError
    return found


SignedIn = Annotated[Visitor, Depends(_signed_in)]


async def form_of(request: Request) -> dict[str, str]:
    """The fields of a form; of several with one name, the last."""
    try:
        return dict(parse_qsl((await request.body()).decode(), keep_blank_values=True, max_num_fields=100))
    except ValueError:  # also what is no text
        raise RequestError(422, Refusal.MALFORMED, "The body is no form.") from None


def require_own_page(request: Request, who: Visitor | None, token: str) -> None:
    """Refuses what was sent by a page of somebody else, which a browser sends with the operator's cookie.

    Args:
        request: that changes something.
        who: is signed in; None: nobody needs to be.
        token: what the form carried.

    Raises:
        RequestError: 403.
    """
    right = who is None or hmac.compare_digest(token.encode(), who.session.token.encode())
    if not is_own_page(request.headers) or not right:
        raise RequestError(
            403,
            Refusal.REFUSED,
            "This was not sent by a page of this server, or by one that is out of date.",
            "Open the page anew and try again.",
        )


def token_in(request: Request, form: dict[str, str]) -> str:
    """The token that a form or a script has sent."""
    return form.get(_FIELD) or request.headers.get(CSRF, "")


def own_path(path: str) -> str:
    """The page to go to after signing in: one of this server, whatever somebody has put into the address."""
    ours = path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable()
    return path if ours else "/"


class Page(APIRoute):
    """A route whose errors are pages, where a browser asks for one."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """See FastAPI."""
        handle = super().get_route_handler()

        async def handle_errors(request: Request) -> Response:
            try:
                return secured(await handle(request))
            except SignInNeededError:
                return secured(_to_sign_in(request))
            except RequestError as error:
                refused = await request_error(request, error)
            except EdgeflError as error:
                refused = await edgefl_error(request, error)
            if "text/html" not in request.headers.get("Accept", ""):
                return secured(refused)
            values = {**json.loads(bytes(refused.body))["error"], "status": refused.status_code}
            who = await visitor(request)
            shown = {} if who is None else who.shown()
            return page("error", {**values, "shown": shown, **shown}, refused.status_code)

        return handle_errors


def _to_sign_in(request: Request) -> Response:
    path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    if request.headers.get("HX-Request"):  # a part of a page: the whole page has to go
        seen = request.headers.get("EdgeFL-Page", "/")
        return Response(status_code=204, headers={"HX-Redirect": f"/sign-in?next={quote(own_path(seen))}"})
    if request.method != "GET" or "text/html" not in request.headers.get("Accept", ""):
        return Response("Sign in first.\n", 401, media_type="text/plain")
    return RedirectResponse("/sign-in" if path == "/" else f"/sign-in?next={quote(path)}", 303)
