"""The calls of devices: enrol, get work, fetch what it names, send what came out."""

from __future__ import annotations

import time
from typing import Annotated, Any

import anyio
from fastapi import APIRouter, Body, Path, Request, Response
from fastapi.responses import FileResponse, JSONResponse
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from edgefl.wire.messages import CONTENT_TYPE
from edgefl_server.http.context import Caller, Shared, bearer
from edgefl_server.http.errors import RequestError, retry_after
from edgefl_server.storage import (
    accept_outcome,
    active_runs,
    enrol,
    largest_outcome,
    may_fetch,
    next_task,
    renew_lease,
)

__all__ = ["router"]

router = APIRouter(prefix="/v1", tags=["devices"])

_LONGEST_WAIT_SECONDS = 30.0
_LONGEST_IDLE_WAIT_SECONDS = 1.0
"""The wait when the population has no active run at all: scripts (`--until-idle`) sit it out at their end."""
_LONGEST_SILENCE_SECONDS = 60.0
"""A sender that goes silent in the middle of a body for so long is cut off."""

Hash = Annotated[str, Path(pattern="^[0-9a-f]{64}$", description="SHA-256 as lower-case hexadecimal digits")]
TaskId = Annotated[str, Path(max_length=100, pattern="^[0-9a-f-]+$")]


class Enrolment(BaseModel):
    """What a device says when it enrols."""

    device_id: str = Field(description="32 lower-case hexadecimal digits that the device drew itself")
    secret_hash: str = Field(description="SHA-256 of the secret's 64 hexadecimal digits")
    population: str
    capabilities: dict[str, Any] = Field(default_factory=dict)


class Poll(BaseModel):
    """How long a device is willing to wait."""

    wait: float = Field(default=0.0, ge=0, allow_inf_nan=False, description="seconds; at most 30 are used")


@router.post("/devices", summary="Enrol, or enrol again", status_code=201)
async def enrol_device(enrolment: Enrolment, request: Request, context: Shared) -> Response:
    """201 for a new device, 200 when the same one enrols again: a lost reply costs nothing."""
    new = await run_in_threadpool(
        enrol,
        context.state,
        bearer(request),
        enrolment.device_id,
        enrolment.secret_hash,
        enrolment.population,
        enrolment.capabilities,
    )
    return JSONResponse({"device_id": enrolment.device_id}, 201 if new else 200)


@router.post("/tasks/next", summary="Get work", responses={204: {"description": "no work now"}})
async def get_next_task(
    request: Request, device: Caller, context: Shared, poll: Annotated[Poll | None, Body()] = None
) -> Response:
    """The device's open task, else a new one; else, after waiting, 204 with when to come back."""
    started = time.monotonic()
    wait = min(poll.wait if poll else 0.0, _LONGEST_WAIT_SECONDS)
    seen = 0
    while True:
        ticket = context.work.ticket()
        task = await run_in_threadpool(next_task, context.state, device)
        if task is not None:
            return Response(task.encode(), media_type=CONTENT_TYPE)
        active = await run_in_threadpool(active_runs, context.state, device.population)
        # A script that ends with the work (`--until-idle`) learns so at once, or soon when there was none.
        limit = wait if active else min(wait, _LONGEST_IDLE_WAIT_SECONDS)
        remaining = started + limit - time.monotonic()
        ended = seen > 0 and active == 0
        if ended or remaining <= 0 or context.work.stopping or await request.is_disconnected():
            break
        seen = active
        await context.work.wait(ticket, remaining)
    headers = {**(retry_after(1, 3) if active else retry_after(5, 15)), "EdgeFL-Active-Runs": str(active)}
    return Response(status_code=204, headers=headers)


@router.post("/tasks/{task_id}/lease", summary="Say that the device still works on a task")
async def renew(task_id: TaskId, device: Caller, context: Shared) -> dict[str, float]:
    """200 with the new lease, or 410 when the task is not wanted any more."""
    try:
        seconds = await run_in_threadpool(renew_lease, context.state, device.device, task_id)
    except KeyError:
        raise _unknown_task() from None
    if seconds is None:
        raise RequestError(410, "abandoned", "The task is not wanted any more.", "Drop it and ask for the next one.")
    return {"lease_seconds": seconds}


@router.put("/tasks/{task_id}/outcome", summary="Send what came out", status_code=202)
async def put_outcome(task_id: TaskId, request: Request, device: Caller, context: Shared) -> Response:
    """202 once it is on the disk, belongs to its round and will be folded exactly once; the same bytes again: 202."""
    try:
        limit = await run_in_threadpool(largest_outcome, context.state, device.device, task_id)
    except KeyError:
        await read_body(request, None)
        raise _unknown_task() from None
    data = await read_body(request, limit)
    made_room = await run_in_threadpool(accept_outcome, context.state, device.device, task_id, data)
    context.folding.ring()
    if made_room:
        context.work.ring()
    return JSONResponse({"task_id": task_id}, 202)


@router.get("/models/{model_hash}", summary="Fetch a model file", response_class=FileResponse)
async def get_model(model_hash: Hash, request: Request, device: Caller, context: Shared) -> Response:
    """Immutable, with Range and ETag; only for a device with an open task that names it."""
    await _require_task(context, device.device, model_hash)
    return send_blob(request, await run_in_threadpool(context.state.models.path, model_hash), model_hash)


@router.get("/weights/{weights_hash}", summary="Fetch weights", response_class=FileResponse)
async def get_weights(weights_hash: Hash, request: Request, device: Caller, context: Shared) -> Response:
    """The flat vector as little-endian float32. Immutable, with Range and ETag; only for an open task that names it."""
    await _require_task(context, device.device, weights_hash)
    return send_blob(request, await run_in_threadpool(context.state.weights.path, weights_hash), weights_hash)


async def read_body(request: Request, limit: int | None) -> bytes:
    """The whole body; a sender that goes silent is cut off with 408.

    Args:
        request: whose; `BodyLimit` has bounded it to what fits any request of its kind.
        limit: more bytes get 413, after they were read and dropped: a client reads the answer only when it may finish
            sending. None: drop all.
    """
    data, length = bytearray(), 0
    chunks = request.stream().__aiter__()
    try:
        while True:
            with anyio.fail_after(_LONGEST_SILENCE_SECONDS):
                chunk = await chunks.__anext__()
            length += len(chunk)
            if limit is not None and length <= limit:
                data += chunk
    except StopAsyncIteration:
        if limit is not None and length > limit:
            raise RequestError(
                413, "too_large", f"The body expects at most {limit} bytes here, got {length}."
            ) from None
        return bytes(data)
    except TimeoutError:
        raise RequestError(408, "too_slow", "The body stopped coming.") from None
    except ClientDisconnect:
        raise RequestError(400, "malformed", "The connection ended before the body did.") from None


def send_blob(request: Request, path: Any, digest: str, headers: dict[str, str] | None = None) -> Response:
    """A blob with its hash as the ETag; Range is FileResponse's work."""
    if path is None:
        raise RequestError(404, "not_found", "There is nothing with this hash.")
    all_headers = {"ETag": f'"{digest}"', "Cache-Control": "private, max-age=31536000, immutable", **(headers or {})}
    if digest in request.headers.get("If-None-Match", ""):
        return Response(status_code=304, headers=all_headers)
    return FileResponse(path, media_type="application/octet-stream", headers=all_headers)


async def _require_task(context: Shared, device: str, digest: str) -> None:
    if not await run_in_threadpool(may_fetch, context.state, device, digest):
        raise RequestError(
            404, "not_found", "No open task of this device names this hash.", "Ask for the next task, then fetch."
        )


def _unknown_task() -> RequestError:
    return RequestError(404, "unknown_task", "The device has no such task.", "Drop it and ask for the next one.")
