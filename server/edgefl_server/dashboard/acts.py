"""What operators do on the pages: create, pause, stop and extend runs, by the functions behind the protocol's calls."""

from __future__ import annotations

import json
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse

from edgefl.wire.refusals import Refusal
from edgefl_server.dashboard.doors import CSRF, Page, SignedIn, form_of, require_own_page, token_in
from edgefl_server.http import operator_routes
from edgefl_server.http.context import Shared
from edgefl_server.http.errors import RequestError
from edgefl_server.http.operator_routes import NewRun, RunId
from edgefl_server.roles import Right

__all__ = ["router"]

router = APIRouter(route_class=Page, include_in_schema=False)

_ACTS = {
    "pause": operator_routes.post_pause,
    "resume": operator_routes.post_resume,
    "stop": operator_routes.post_stop,
}


@router.post("/new")
async def post_new(request: Request, who: SignedIn, new: Annotated[NewRun, Query()], context: Shared) -> Response:
    """Creates a run: the body is the model file, the query holds the settings. Answers where its page is."""
    require_own_page(request, who, request.headers.get(CSRF, ""))
    who.require(Right.RUN)
    if new.weights or new.evaluate_on:
        raise RequestError(422, Refusal.MALFORMED, "Files beside the model are for `edgefl run create`.")
    made = await operator_routes.post_run(new, request, context)
    return JSONResponse({"page": f"/runs/{json.loads(bytes(made.body))['run']}"}, 201)


@router.post("/runs/{run_id}/extend")
async def post_extend(run_id: RunId, request: Request, who: SignedIn, context: Shared) -> Response:
    """Gives a run more rounds."""
    form = await form_of(request)
    require_own_page(request, who, token_in(request, form))
    who.require(Right.RUN)
    text = form.get("rounds", "")
    if not text.isdecimal() or len(text) > 9:
        raise RequestError(422, Refusal.MALFORMED, f"How many more rounds expects a number, got {text!r:.40}.")
    await operator_routes.post_continue(run_id, int(text), context)
    return RedirectResponse(f"/runs/{run_id}", 303)


@router.post("/runs/{run_id}/{act}")
async def post_act(run_id: RunId, act: str, request: Request, who: SignedIn, context: Shared) -> Response:
    """Pauses, resumes or stops a run."""
    require_own_page(request, who, token_in(request, await form_of(request)))
    who.require(Right.RUN)
    if act not in _ACTS:
        raise RequestError(404, Refusal.NOT_FOUND, f"A run cannot be told to {act:.40}.")
    await _ACTS[act](run_id, context)
    return RedirectResponse(f"/runs/{run_id}", 303)
