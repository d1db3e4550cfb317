"""The calls of operators about devices: who there is, and tag, block, limit and remove one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool

from edgefl.wire.words import DEVICE_BEGINNING, RANDOM_ID, SHORT_NAME
from edgefl_server.device_states import DeviceState
from edgefl_server.http.auditing import ActRoute, Deed, TheDeed
from edgefl_server.http.context import Context, Shared, needs
from edgefl_server.roles import Right
from edgefl_server.storage import (
    MOST_LISTED,
    Quota,
    block_device,
    get_device,
    limit_device,
    list_devices,
    remove_device,
    tag_device,
    unblock_device,
)

__all__ = ["router"]

router = APIRouter(prefix="/v1", tags=["fleet"], route_class=ActRoute)

_READ, _TEND, _REMOVE = ([needs(right)] for right in (Right.READ, Right.TEND, Right.REMOVE))
DeviceId = Annotated[
    str, Path(pattern=f"^{DEVICE_BEGINNING}$", description="id, or its beginning when only one begins so")
]


class Tags(BaseModel):
    """The body that tags a device."""

    tags: list[Annotated[str, Field(max_length=64)]] = Field(max_length=64)


class NewQuota(BaseModel):
    """The body that limits what a device may send in any 24 hours."""

    outcomes: int | None = Field(None, ge=0, le=2**31 - 1, description="outcomes with an update; null: any number")
    bytes: int | None = Field(None, ge=0, le=2**31 - 1, description="of these; null: any number")


@router.get("/devices", dependencies=_READ, summary="List devices")
async def get_devices(
    context: Shared,
    limit: Annotated[int, Query(ge=1, le=MOST_LISTED)] = 100,
    after: Annotated[str, Query(pattern=f"^({RANDOM_ID})?$", description="the last id of the page before")] = "",
    population: Annotated[str | None, Query(pattern=f"^{SHORT_NAME}$")] = None,
    tag: Annotated[str | None, Query(pattern=f"^{SHORT_NAME}$")] = None,
    state: Annotated[DeviceState | None, Query()] = None,
) -> dict[str, Any]:
    """A page in the order of ids; `next` is the `after` of the page behind it, null where that is empty."""

    def find() -> dict[str, Any]:
        return list_devices(context.state, limit, after=after, population=population, tag=tag, status=state)

    return await run_in_threadpool(find)


@router.get("/devices/{device_id}", dependencies=_READ, summary="Say what is known of a device")
async def get_one_device(device_id: DeviceId, context: Shared) -> dict[str, Any]:
    """When it called last, what it can do, its tags and limits. Nothing of what it sent."""
    return await run_in_threadpool(get_device, context.state, device_id)


@router.post("/devices/{device_id}/tags", dependencies=_TEND, summary="Tag a device")
async def post_tags(device_id: DeviceId, new: Tags, context: Shared, deed: TheDeed) -> dict[str, Any]:
    """These take the place of the tags that it had."""
    deed.detail = {"tags": new.tags}
    return await _after(lambda: tag_device(context.state, device_id, new.tags), context, deed)


@router.post("/devices/{device_id}/quota", dependencies=_TEND, summary="Limit what a device sends in a day")
async def post_quota(device_id: DeviceId, new: NewQuota, context: Shared, deed: TheDeed) -> dict[str, Any]:
    """It gets no new task once it has sent so much within 24 hours; null in both ends the limit."""
    deed.detail = new.model_dump()
    quota = Quota(new.outcomes, new.bytes)
    return await _after(lambda: limit_device(context.state, device_id, quota), context, deed)


@router.post("/devices/{device_id}/block", dependencies=_TEND, summary="Block a device")
async def post_block(device_id: DeviceId, context: Shared, deed: TheDeed) -> dict[str, Any]:
    """It is refused until it is unblocked, and others get the places of its tasks. What was accepted stays."""
    found = await _after(lambda: block_device(context.state, device_id), context, deed)
    context.changed(found["population"])
    return found


@router.post("/devices/{device_id}/unblock", dependencies=_TEND, summary="Unblock a device")
async def post_unblock(device_id: DeviceId, context: Shared, deed: TheDeed) -> dict[str, Any]:
    """It goes on the next time it asks."""
    return await _after(lambda: unblock_device(context.state, device_id), context, deed)


@router.post("/devices/{device_id}/remove", dependencies=_REMOVE, summary="Remove a device with what it sent")
async def post_removal(device_id: DeviceId, context: Shared, deed: TheDeed) -> dict[str, Any]:
    """Says how many outcomes were dropped. What is folded is part of the weights, and cannot be taken out."""
    gone = await run_in_threadpool(remove_device, context.state, device_id)
    deed.about, deed.detail = gone["device"], {"dropped": gone["dropped"], "folded": gone["folded"]}
    context.changed()
    return gone


async def _after(change: Callable[[], str], context: Context, deed: Deed) -> dict[str, Any]:
    deed.about = await run_in_threadpool(change)
    return await run_in_threadpool(get_device, context.state, deed.about)
