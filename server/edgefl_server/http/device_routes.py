"""The calls of devices: enrol, get work, fetch what it names, send what came out."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path as FilePath
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Header, Path, Query, Request, Response
from fastapi.responses import FileResponse, JSONResponse
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope, Send

from edgefl.errors import storage_error
from edgefl.wire.calls import (
    ACTIVE_RUNS,
    DIFFERENCE,
    DIGEST,
    ENDED_RUNS,
    LENGTH,
    LONGEST_ASKED,
    LONGEST_WAIT_SECONDS,
    MOST_ASKED,
    MOST_HELD,
    OFFSET,
    PINS,
)
from edgefl.wire.messages import CONTENT_TYPE, CONTROL_TYPE
from edgefl.wire.refusals import Refusal
from edgefl.wire.words import HASH, NAME
from edgefl_server.http.context import Caller, Context, Shared, bearer
from edgefl_server.http.errors import RequestError, response, retry_after
from edgefl_server.http.receiving import Announced, fill_at_once, is_short, is_whole, wrong_offset
from edgefl_server.http.waiting import Call
from edgefl_server.storage import (
    Accepted,
    EnrolmentRefusedError,
    Looked,
    ServerState,
    Upload,
    accept_upload,
    ended_runs,
    enrol,
    fetching_run,
    look_at_outcome,
    received_bytes,
    renew_lease,
    tell_capabilities,
    tell_public_key,
)
from edgefl_server.storage.blobs import BlobStore

__all__ = ["router"]

router = APIRouter(prefix="/v1", tags=["devices"])

_LONGEST_IDLE_WAIT_SECONDS = 1.0
"""The wait of devices that end with the work when there is none: scripts (`--until-idle`) sit it out at their end."""
_SMALL_BYTES = 256 << 10
"""Such a file is read at once: sending it in pieces takes five turns of a thread each."""
_ONE_RANGE = re.compile("bytes=([0-9]+-[0-9]*|-[0-9]+)")
"""Several parts would come as another type, and with much more to send than the file has."""
_EXPECTED_RANGE = "The Range expects one of the forms bytes=N-, bytes=N-M with N at most M, and bytes=-N."
Hash = Annotated[str, Path(pattern=f"^{HASH}$", description="SHA-256 as lower-case hexadecimal digits")]
TaskId = Annotated[str, Path(pattern=f"^{NAME}$")]


class Enrolment(BaseModel):
    """The body with which a device enrols."""

    device_id: str = Field(description="32 lower-case hexadecimal digits that the device drew itself")
    secret_hash: str = Field(description="SHA-256 of the secret's 64 hexadecimal digits")
    population: str
    capabilities: dict[str, Any] = Field(default_factory=dict)
    public_key: str | None = Field(default=None, description="SubjectPublicKeyInfo in DER and base64")


class Poll(BaseModel):
    """The body of a poll: how long the device is willing to wait, and what it says of itself."""

    wait: float = Field(
        default=0.0, ge=0, allow_inf_nan=False, description=f"seconds; at most {LONGEST_WAIT_SECONDS:g} are used"
    )
    until_idle: bool = Field(default=True, description="whether the device wants to know when no run is active")
    capabilities: dict[str, Any] | None = Field(
        default=None, description="what the device can do, where that may not be what it said when it enrolled"
    )
    public_key: str | None = Field(default=None, description="the device's key, in the place of the one before")
    remembers: list[Annotated[str, Field(pattern=f"^{NAME}$", max_length=LONGEST_ASKED)]] = Field(
        default_factory=list, max_length=MOST_ASKED, description="runs of which the device keeps something"
    )


async def _announced(
    digest: Annotated[str | None, Header(alias=DIGEST, pattern=f"^{HASH}$")] = None,
    length: Annotated[int | None, Header(alias=LENGTH, ge=1)] = None,
    offset: Annotated[int, Header(alias=OFFSET, ge=0)] = 0,
) -> Announced | None:
    if digest is None and length is None and offset == 0:
        return None
    if digest is None or length is None or offset > length:
        raise RequestError(
            422, Refusal.MALFORMED, f"Expected {DIGEST} and {LENGTH} together, and an {OFFSET} within it."
        )
    return Announced(digest, length, offset)


@router.post("/devices", summary="Enrol, or enrol again", status_code=201)
async def enrol_device(enrolment: Enrolment, request: Request, context: Shared) -> Response:
    """201 for a new device, 200 when the same one enrols again: a lost reply costs nothing."""
    who, token = enrolment, bearer(request)
    said = (who.device_id, who.secret_hash, who.population, who.capabilities, who.public_key)
    try:
        new = await run_in_threadpool(enrol, context.state, token, *said)
    except EnrolmentRefusedError:
        context.refuse("invitation", request.scope["state"].get("address", ""))
        raise
    return control({"device_id": enrolment.device_id}, 201 if new else 200)


@router.post("/tasks/next", summary="Get work", responses={204: {"description": "no work now"}})
async def get_next_task(
    request: Request, device: Caller, context: Shared, poll: Annotated[Poll | None, Body()] = None
) -> Response:
    """The device's open task, else a new one; else, after waiting, 204 with when to come back."""
    started = time.monotonic()
    wait = min(poll.wait if poll else 0.0, LONGEST_WAIT_SECONDS)
    line, population, remembers = context.work, device.population, poll.remembers if poll else []
    until_idle = poll is None or poll.until_idle
    if poll is not None and poll.capabilities is not None:
        await run_in_threadpool(tell_capabilities, context.state, device, poll.capabilities)
    if poll is not None and poll.public_key is not None:
        await run_in_threadpool(tell_public_key, context.state, device, poll.public_key)
    if context.state.barring.is_limited(device.device) and device.device not in context.tasked:
        await _require_quota(context, device.device)
    seen, called = 0, False
    while True:
        ticket = line.ticket(population)
        outlook = await line.outlook(population)
        task, active = await context.find_task(device, outlook), outlook.active
        if called and active:
            line.pass_on(population)
        if task is not None:
            context.counters.tasks += 1
            headers = await _headers(context, population, remembers)
            return Response(task.encode(), media_type=CONTENT_TYPE, headers=headers)
        # Who ends with the work learns at once that it is over, or soon when there was none. All others stay in line,
        # so that a new run has its devices at once.
        limit = min(wait, _LONGEST_IDLE_WAIT_SECONDS) if until_idle and not active else wait
        if until_idle and seen > 0 and active == 0:
            break
        seen = active
        call = await line.wait(
            population, ticket, started + limit - time.monotonic(), until_idle=until_idle, device=device.device
        )
        if call is Call.NONE or line.stopping:
            break
        called = call is Call.CALLED
        if called and await request.is_disconnected():
            line.pass_on(population)
            break
    headers = await _headers(context, population, remembers)
    # A device that waits in line is soon there again; one that only asks need not ask often while there is nothing.
    soon = active or limit > _LONGEST_IDLE_WAIT_SECONDS
    headers |= {**(retry_after(1, 3) if soon else retry_after(5, 15)), ACTIVE_RUNS: str(active)}
    return Response(status_code=204, headers=headers)


@router.post("/tasks/{task_id}/lease", summary="Say that the device still works on a task")
async def renew(task_id: TaskId, device: Caller, context: Shared) -> Response:
    """200 with the new lease, or 410 when the task is not wanted any more."""
    seconds = await run_in_threadpool(renew_lease, context.state, device.device, task_id)
    if seconds is None:
        raise RequestError(
            410, Refusal.ABANDONED, "The task is not wanted any more.", "Drop it and ask for the next one."
        )
    return control({"lease_seconds": seconds})


@router.get("/tasks/{task_id}/outcome", summary="Ask how much of an outcome has arrived")
async def get_outcome(
    task_id: TaskId, digest: Annotated[str, Query(pattern=f"^{HASH}$")], device: Caller, context: Shared
) -> Response:
    """Says from which byte on to send it; what is still arriving of the device is cut off first."""
    async with context.receiving.alone(device.device):
        received = await run_in_threadpool(received_bytes, context.state, device.device, task_id, digest)
    return control({"received": received})


@router.put("/tasks/{task_id}/outcome", summary="Send what came out", status_code=202)
async def put_outcome(
    task_id: TaskId,
    request: Request,
    device: Caller,
    context: Shared,
    announced: Annotated[Announced | None, Depends(_announced)],
) -> Response:
    """202 once it is on the disk, belongs to its round and will be folded exactly once; the same bytes again: 202."""
    digest = announced.digest if announced else None
    state, who, receiving = context.state, device.device, context.receiving

    def look() -> Looked:
        looked = look_at_outcome(state, who, task_id, digest)
        most = looked.most_bytes
        if announced is not None and announced.length > most:
            raise RequestError(
                413, Refusal.TOO_LARGE, f"The outcome expects at most {most} bytes, got {announced.length}."
            )
        return looked

    def renew() -> None:
        if look().lease_fades and renew_lease(state, who, task_id) is None:
            look()  # raises why it is not wanted

    def begin() -> tuple[Looked, Upload | None]:
        """Refuses what is not wanted before it is read; no upload: it is here already."""
        looked = look()
        if looked.accepted:
            return looked, None
        if announced is not None:
            received = state.uploads.received(who, task_id, announced.digest)
            if received > announced.length:  # which is no part of this message
                state.uploads.forget(who)
                received = 0
            if received != announced.offset:
                raise wrong_offset(received)
            if received:  # the connection broke, and nothing was heard of the device since
                renew()
        return looked, state.uploads.open(who, task_id, digest)

    def accept_at_once(body: bytes) -> Accepted:
        looked, upload = begin()
        if upload is None:
            return Accepted()
        fill_at_once(upload, body, looked.most_bytes, announced)
        return accept_upload(state, who, task_id, upload, looked.expected, receiving.unfolding(looked.most_bytes))

    accepted = Accepted()
    async with receiving.alone(who):
        first = await request.receive() if is_short(request) else None
        if first is not None and is_whole(first):
            accepted = await receiving.use_short(lambda: accept_at_once(first.get("body", b"")))
        else:
            looked, upload = await run_in_threadpool(begin)
            if upload is not None:
                renewed = partial(run_in_threadpool, renew)
                await receiving.fill(upload, request, looked.most_bytes, announced, renewed, first)
                accepted = await receiving.accept(
                    lambda: accept_upload(state, who, task_id, upload, looked.expected, receiving.in_memory)
                )
    context.counters.accepted(accepted.status, accepted.codec, accepted.size)
    if accepted.idle:
        context.settled(who, task_id)
    if accepted.closed:
        context.folding.ring()
    if accepted.made_room or accepted.closed:
        context.work.ring(device.population)
    return control({"task_id": task_id}, 202)


@router.get("/models/{model_hash}", summary="Fetch a model file", response_class=FileResponse)
async def get_model(model_hash: Hash, request: Request, device: Caller, context: Shared) -> Response:
    """Immutable, with Range and ETag; only for a device with an open task that names it."""
    return await run_in_threadpool(_fetch, context.state, context.state.models, device.device, model_hash, request)


@router.get("/weights/{weights_hash}", summary="Fetch weights", response_class=FileResponse)
async def get_weights(weights_hash: Hash, request: Request, device: Caller, context: Shared) -> Response:
    """The flat vector as little-endian float32. Immutable, with Range and ETag; only for an open task that names it.

    A device that holds earlier weights may be told how they changed (RFC 3229): status 226.
    """
    return await run_in_threadpool(_fetch_weights, context.state, device.device, weights_hash, request)


def control(document: dict[str, Any], status: int = 200) -> JSONResponse:
    """An answer to a device, which knows by its type that an edgefl server gave it."""
    return JSONResponse(document, status, media_type=CONTROL_TYPE)


def send_blob(request: Request, path: FilePath | None, digest: str, headers: dict[str, str] | None = None) -> Response:
    """A blob with its hash as the ETag, to be called in a thread; Range is FileResponse's work."""
    if path is None:
        raise RequestError(404, Refusal.NOT_FOUND, "There is nothing with this hash.")
    all_headers = {"ETag": f'"{digest}"', "Cache-Control": "private, max-age=31536000, immutable", **(headers or {})}
    if digest in request.headers.get("If-None-Match", ""):
        return Response(status_code=304, headers=all_headers)
    if _ONE_RANGE.fullmatch(request.headers.get("Range", "bytes=0-")) is None:
        raise RequestError(400, Refusal.BAD_RANGE, _EXPECTED_RANGE)
    try:
        status = path.stat()
        content = path.read_bytes() if status.st_size <= _SMALL_BYTES and "Range" not in request.headers else None
    except FileNotFoundError:
        raise RequestError(404, Refusal.NOT_FOUND, "There is nothing with this hash.") from None
    except OSError as error:
        raise storage_error(error, "read", path) from error
    if content is not None:
        return Response(
            content, media_type="application/octet-stream", headers={**all_headers, "Accept-Ranges": "bytes"}
        )
    return _Download(path, media_type="application/octet-stream", headers=all_headers, stat_result=status)


class _Download(FileResponse):
    """A file, whose refusals of a Range are edgefl errors."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        refusal: JSONResponse | None = None

        async def checked_send(message: Message) -> None:
            nonlocal refusal
            if message["type"] == "http.response.start" and message["status"] in (400, 416):
                status, sent = message["status"], Headers(raw=message["headers"])
                kept = {name: sent[name] for name in ("Content-Range",) if name in sent}
                why = "The Range begins beyond the end." if status == 416 else _EXPECTED_RANGE
                refusal = response(status, Refusal.BAD_RANGE, why, headers=kept)
            if refusal is None:
                await send(message)

        await super().__call__(scope, receive, checked_send)
        if refusal is not None:
            await refusal(scope, receive, send)


async def _require_quota(context: Context, device: str) -> None:
    """Hands nothing more to a device that has sent as much as it may: nobody trains in vain."""
    barring, date = context.state.barring, context.state.date()
    seconds = await run_in_threadpool(barring.seconds_left, device, date)
    if seconds > 0:
        raise RequestError(
            429,
            Refusal.QUOTA_USED_UP,
            "This device has sent as much as it may in a day.",
            "It goes on by itself.",
            {"Retry-After": str(math.ceil(seconds))},
        )


async def _headers(context: Context, population: str, remembers: list[str]) -> dict[str, str]:
    """Says in headers what every answer to a poll says beside the task."""
    said = {PINS: context.pins} if context.pins else {}
    ended = await run_in_threadpool(ended_runs, context.state, population, remembers) if remembers else []
    return {**said, ENDED_RUNS: ",".join(ended)} if ended else said


def _fetch_weights(state: ServerState, device: str, digest: str, request: Request) -> Response:
    whole = _fetch(state, state.weights, device, digest, request)
    path = state.weights.path(digest)
    manners = [each.strip() for each in request.headers.get("A-IM", "").split(",")]
    if DIFFERENCE not in manners or path is None or "Range" in request.headers or whole.status_code != 200:
        return whole
    held = re.findall(f'"({HASH})"', request.headers.get("If-None-Match", ""))[:MOST_HELD]
    found = state.differences.chain(digest, held, path.stat().st_size)
    if found is None:
        return whole
    base, content = found
    headers = {"ETag": f'"{digest}"', "IM": DIFFERENCE, "Delta-Base": f'"{base}"', "Cache-Control": "private, no-store"}
    return _Counted(Response(content, 226, headers, "application/octet-stream"), whole.note)


def _fetch(state: ServerState, blobs: BlobStore, device: str, digest: str, request: Request) -> _Counted:
    run = fetching_run(state, device, digest)
    if run is None:
        raise RequestError(
            404, Refusal.NOT_FOUND, "No open task of this device names this hash.", "Ask for the next task, then fetch."
        )
    return _Counted(send_blob(request, blobs.path(digest), digest), partial(state.fetched.note, run))


class _Counted(Response):
    """An answer of which is noted how many bytes of its body were sent, also where the connection breaks."""

    def __init__(self, answer: Response, note: Callable[[int], None]) -> None:
        super().__init__(status_code=answer.status_code)
        self.note, self._answer = note, answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        sent = 0

        async def counting_send(message: Message) -> None:
            nonlocal sent
            await send(message)
            sent += len(message.get("body", b""))

        try:
            await self._answer(scope, receive, counting_send)
        finally:
            self.note(sent)
            scope["app"].state.context.counters.download_bytes += sent
