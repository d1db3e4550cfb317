"""The acts of operators on the pages: create, pause, stop and extend runs, by the functions of the protocol's calls."""

from __future__ import annotations

import json
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse

from edgefl.wire.refusals import Refusal
from edgefl_server.dashboard.doors import CSRF, Page, SignedIn, form_of, require_own_page, token_in
from edgefl_server.http import operator_routes
from edgefl_server.http.auditing import ActRoute, TheDeed
from edgefl_server.http.context import Shared
from edgefl_server.http.errors import RequestError
from edgefl_server.http.operator_routes import NewRun, RunId
from edgefl_server.roles import Right

__all__ = ["router"]


class _ActPage(Page, ActRoute):
    """Stands in the audit log by the name of the call that does the same."""

    def _act(self) -> str:
        return self.name


router = APIRouter(route_class=_ActPage, include_in_schema=False)


async def _require(request: Request, who: SignedIn) -> dict[str, str]:
    """The fields of a form that may do something to a run."""
    form = await form_of(request)
    require_own_page(request, who, token_in(request, form))
    who.require(Right.RUN)
    return form


@router.post("/new", name="runs.create")
async def post_new(
    request: Request, who: SignedIn, new: Annotated[NewRun, Query()], context: Shared, deed: TheDeed
) -> Response:
    """Creates a run: the body is the model file, the query holds the settings. Answers where its page is."""
    require_own_page(request, who, request.headers.get(CSRF, ""))
    who.require(Right.RUN)
    if new.weights or new.evaluate_on:
        raise RequestError(422, Refusal.MALFORMED, "Files beside the model are for `edgefl run create`.")
    made = await operator_routes.post_run(new, request, context, deed)
    return JSONResponse({"page": f"/runs/{json.loads(bytes(made.body))['run']}"}, 201)


@router.post("/runs/{run_id}/extend", name="runs.continue")
async def post_extend(run_id: RunId, request: Request, who: SignedIn, context: Shared, deed: TheDeed) -> Response:
    """Gives a run more rounds."""
    text = (await _require(request, who)).get("rounds", "")
    if not (text.isascii() and text.isdecimal() and len(text) <= 9):
        raise RequestError(422, Refusal.MALFORMED, f"How many more rounds expects a number, got {text!r:.40}.")
    await operator_routes.post_continue(run_id, int(text), context, deed)
    return _back(run_id)


@router.post("/runs/{run_id}/pause", name="runs.pause")
async def post_pause(run_id: RunId, request: Request, who: SignedIn, context: Shared, deed: TheDeed) -> Response:
    """Pauses a run."""
    await _require(request, who)
    await operator_routes.post_pause(run_id, context, deed)
    return _back(run_id)


@router.post("/runs/{run_id}/resume", name="runs.resume")
async def post_resume(run_id: RunId, request: Request, who: SignedIn, context: Shared, deed: TheDeed) -> Response:
    """Lets a paused run go on."""
    await _require(request, who)
    await operator_routes.post_resume(run_id, context, deed)
    return _back(run_id)


@router.post("/runs/{run_id}/stop", name="runs.stop")
async def post_stop(run_id: RunId, request: Request, who: SignedIn, context: Shared, deed: TheDeed) -> Response:
    """Stops a run."""
    await _require(request, who)
    await operator_routes.post_stop(run_id, context, deed)
    return _back(run_id)


def _back(run_id: str) -> Response:
    return RedirectResponse(f"/runs/{run_id}", 303)
