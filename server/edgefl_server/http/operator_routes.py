"""The calls of operators: runs and invitations."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import FileResponse, JSONResponse
from pydantic import BaseModel, ConfigDict, Field, create_model
from starlette.concurrency import run_in_threadpool

from edgefl.wire.calls import ROUND
from edgefl.wire.refusals import Refusal
from edgefl.wire.words import SHORT_NAME
from edgefl_server.aggregation import RunSettings, Setting, run_settings, schedule_for
from edgefl_server.http.auditing import ActRoute, Deed, TheDeed
from edgefl_server.http.context import LARGEST_NUMBER, Context, Shared, needs
from edgefl_server.http.device_routes import send_blob
from edgefl_server.http.errors import RequestError
from edgefl_server.roles import Right
from edgefl_server.storage import (
    ServerState,
    continue_run,
    create_run,
    diff_versions,
    keep_data,
    keep_weights,
    pause_run,
    populations,
    require_data,
    require_invited,
    resume_run,
    roll_back,
    run_history,
    run_log,
    run_status,
    runs_summary,
    stop_run,
    warnings,
    weights_of_round,
)

__all__ = ["router"]

router = APIRouter(prefix="/v1", tags=["operators"], route_class=ActRoute)

_READ, _RUN = [needs(Right.READ)], [needs(Right.RUN)]

Number = Annotated[int, Query(ge=0, le=LARGEST_NUMBER)]
RunId = Annotated[str, Path(pattern=f"^{SHORT_NAME}$", description="id, or the name when only one run has it")]


class _NewRun(BaseModel):
    """The settings of a run as query parameters; `RunSettings` says what each means and checks it."""

    model_config = ConfigDict(extra="forbid")

    population: str
    name: str = ""
    evaluate_on: str = Field("", max_length=64, description="Hash of data that POST /v1/data took, to evaluate on.")
    weights: str | None = Field(None, description="Hash of the weights to begin with.", max_length=64)

    def settings(self) -> RunSettings:
        """The settings, checked."""
        settings = RunSettings.of(**{each.name: getattr(self, each.name) for each in run_settings()})
        settings.require_meaning()  # before the model is read
        schedule_for(settings)
        return settings


def _parameter(setting: Setting) -> tuple[Any, Any]:
    kind: Any = setting.kind | None if setting.optional else setting.kind
    default = ... if setting.required else setting.default
    return kind, Field(default, description=setting.help)


if TYPE_CHECKING:
    NewRun = _NewRun
else:
    NewRun = create_model("NewRun", __base__=_NewRun, **{each.name: _parameter(each) for each in run_settings()})


@router.post(
    "/runs",
    dependencies=_RUN,
    summary="Create a run from a model file",
    status_code=201,
    openapi_extra={"requestBody": {"content": {"application/octet-stream": {}}, "required": True}},
)
async def post_run(new: Annotated[NewRun, Query()], request: Request, context: Shared, deed: TheDeed) -> Response:
    """The body is the model file, the query holds the settings. Answers the run's status."""
    settings = new.settings()
    await run_in_threadpool(require_invited, context.state, new.population)
    if new.evaluate_on:
        await run_in_threadpool(require_data, context.state, new.evaluate_on)
    async with context.receiving.file(request, context.state.uploads, context.max_model_bytes) as file:
        run = await context.receiving.use(
            lambda: create_run(
                context.state,
                file.read(),
                new.population,
                settings,
                new.name,
                weights=new.weights or "",
                evaluation_data=new.evaluate_on,
            )
        )
    context.changed(new.population)
    deed.about, deed.detail = run, {"name": new.name, "population": new.population, "rounds": settings.rounds}
    status = await run_in_threadpool(run_status, context.state, run)
    if not status["devices_enrolled"]:
        others = [name for name, devices in (await run_in_threadpool(populations, context.state)).items() if devices]
        there = f"; there are devices in: {', '.join(others[:20])}" if others else ""
        status["warnings"].append(f"no device is enrolled in {new.population} yet, the run waits for some{there}")
    return JSONResponse(status, 201)


@router.post(
    "/data",
    dependencies=_RUN,
    summary="Keep data on which runs are evaluated",
    status_code=201,
    openapi_extra={"requestBody": {"content": {"application/octet-stream": {}}, "required": True}},
)
async def post_data(request: Request, context: Shared, deed: TheDeed) -> dict[str, str]:
    """The body is an ``.npz`` as devices have it. Answers its hash, for `evaluate_on` of a new run."""
    async with context.receiving.file(request, context.state.uploads, context.max_model_bytes) as file:
        digest = await context.receiving.use(lambda: keep_data(context.state, file.read()))
    deed.about = digest
    return {"data": digest}


@router.post(
    "/initial-weights",
    dependencies=_RUN,
    summary="Send weights for runs to begin with",
    status_code=201,
    openapi_extra={"requestBody": {"content": {"application/octet-stream": {}}, "required": True}},
)
async def post_weights(request: Request, context: Shared, deed: TheDeed) -> dict[str, str]:
    """The body is little-endian float32 of a layout. Answers their hash, which ``weights`` of a new run may be."""
    async with context.receiving.file(request, context.state.uploads, context.max_model_bytes) as file:
        deed.about = await context.receiving.use(lambda: keep_weights(context.state, file.read()))
    return {"weights_hash": deed.about}


@router.get("/runs", dependencies=_READ, summary="List all runs")
async def get_runs(context: Shared) -> dict[str, Any]:
    """Oldest first, without their rounds; and what operators should look at."""
    return {
        "runs": await run_in_threadpool(runs_summary, context.state),
        "warnings": await run_in_threadpool(warnings, context.state),
    }


@router.get("/runs/{run_id}", dependencies=_READ, summary="Say how a run goes")
async def get_run(run_id: RunId, context: Shared) -> dict[str, Any]:
    """Settings, state and every round with its outcomes and metrics."""
    return await run_in_threadpool(run_status, context.state, run_id)


@router.get("/runs/{run_id}/history", dependencies=_READ, summary="List the versions of a run's weights")
async def get_history(run_id: RunId, context: Shared) -> dict[str, Any]:
    """Oldest first: from which each came, by how many updates, devices, examples and bytes, and when."""
    return await run_in_threadpool(run_history, context.state, run_id)


@router.get("/runs/{run_id}/diff", dependencies=_READ, summary="Compare two versions of a run's weights")
async def get_diff(run_id: RunId, before: Number, after: Number, context: Shared) -> dict[str, Any]:
    """L2 norms, of all weights and of each parameter: of the first, of the difference; and its largest element."""
    return await run_in_threadpool(diff_versions, context.state, run_id, before, after)


@router.post("/runs/{run_id}/rollback", dependencies=_RUN, summary="Let a run go on from an earlier version")
async def post_rollback(run_id: RunId, version: Number, context: Shared, deed: TheDeed) -> dict[str, Any]:
    """Discards what its open round has accepted; the earlier weights become the newest version."""
    deed.detail = {"version": version}
    return await _status_after(lambda state, run: roll_back(state, run, version), run_id, context, deed)


@router.get("/runs/{run_id}/log", dependencies=_READ, summary="Tell what a run's weights follow from")
async def get_log(run_id: RunId, context: Shared) -> dict[str, Any]:
    """Updates in the order of their acceptance: the version that each began from, and the fold that merged it."""
    return await run_in_threadpool(run_log, context.state, run_id)


@router.post("/runs/{run_id}/stop", dependencies=_RUN, summary="Stop a run")
async def post_stop(run_id: RunId, context: Shared, deed: TheDeed) -> dict[str, Any]:
    """Ends it now; what the open round has accepted is discarded. 409 when it had ended before."""
    if not await run_in_threadpool(stop_run, context.state, run_id):
        raise RequestError(409, Refusal.ENDED, f"Run {run_id} had ended before.")
    status = await run_in_threadpool(run_status, context.state, run_id)
    deed.about = status["run"]
    context.changed(status["population"])
    return status


@router.post("/runs/{run_id}/pause", dependencies=_RUN, summary="Pause a run")
async def post_pause(run_id: RunId, context: Shared, deed: TheDeed) -> dict[str, Any]:
    """Devices get no new task of it; what they are at is taken, and merged. Deadlines stand still."""
    return await _status_after(pause_run, run_id, context, deed)


@router.post("/runs/{run_id}/resume", dependencies=_RUN, summary="Let a paused run go on")
async def post_resume(run_id: RunId, context: Shared, deed: TheDeed) -> dict[str, Any]:
    """Its open round has as much time left as when it was paused."""
    return await _status_after(resume_run, run_id, context, deed)


async def _status_after(
    change: Callable[[ServerState, str], str], run_id: str, context: Context, deed: Deed
) -> dict[str, Any]:
    deed.about = run = await run_in_threadpool(change, context.state, run_id)
    status = await run_in_threadpool(run_status, context.state, run)
    context.changed(status["population"])
    return status


@router.post("/runs/{run_id}/continue", dependencies=_RUN, summary="Give a run more rounds")
async def post_continue(
    run_id: RunId, rounds: Annotated[int, Query()], context: Shared, deed: TheDeed
) -> dict[str, Any]:
    """So many more; one that is over goes on from its newest weights, unless devices have forgotten what it needs."""
    deed.detail = {"rounds": rounds}
    return await _status_after(lambda state, run: continue_run(state, run, rounds), run_id, context, deed)


@router.get(
    "/runs/{run_id}/weights",
    dependencies=_READ,
    summary="Fetch the weights of a run",
    response_class=FileResponse,
)
async def get_weights_of_run(
    run_id: RunId,
    request: Request,
    context: Shared,
    round: Annotated[int | None, Query(ge=0, le=LARGEST_NUMBER)] = None,
) -> Response:
    """Little-endian float32 of the layout; after the given round, or the latest. 0: the initial ones."""

    def find() -> Response:
        digest, number = weights_of_round(context.state, run_id, round)
        return send_blob(request, context.state.weights.path(digest), digest, {ROUND: str(number)})

    return await run_in_threadpool(find)
