"""The calls about people: operators and what each may do, invitations, and the audit log."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool

from edgefl.wire.words import INVITATION_ID
from edgefl_server.http.auditing import ActRoute, TheDeed
from edgefl_server.http.context import LARGEST_NUMBER, AskedBy, Shared, needs
from edgefl_server.roles import Right, Role, rights_of
from edgefl_server.storage import (
    MOST_ENTRIES,
    add_operator,
    audit_entries,
    invite,
    list_invitations,
    list_operators,
    revoke_invitation,
    revoke_operator,
)

__all__ = ["router"]

router = APIRouter(prefix="/v1", tags=["people"], route_class=ActRoute)

_READ, _INVITE, _REMOVE, _APPOINT = (
    [needs(right)] for right in (Right.READ, Right.INVITE, Right.REMOVE, Right.APPOINT)
)
_LONGEST_SECONDS = 1e9
Seconds = Annotated[float | None, Field(gt=0, le=_LONGEST_SECONDS, allow_inf_nan=False, description="null: for ever")]


class NewOperator(BaseModel):
    """The body that adds an operator."""

    name: str = Field(max_length=200, description="any text of 1 to 64 characters that no operator had before")
    role: Role
    expires_seconds: Seconds = None


class OperatorName(BaseModel):
    """The body that says which operator is meant; a name may hold what no path can."""

    name: str = Field(max_length=200)


class Invitation(BaseModel):
    """The body that asks for a token: which population it shall be for, and when it ends."""

    population: str = Field(max_length=200)
    uses: int | None = Field(None, ge=1, le=10**9, description="how many devices may enrol with it; null: any number")
    expires_seconds: Seconds = None
    label: str = Field("", max_length=200, description="any text, by which people know it again")


@router.post("/invitations", dependencies=_INVITE, summary="Make a token with which devices enrol", status_code=201)
async def make_invitation(invitation: Invitation, operator: AskedBy, context: Shared, deed: TheDeed) -> dict[str, Any]:
    """A new token each time; older ones stay valid. Only its hash is kept."""

    def make() -> str:
        return invite(
            context.state,
            invitation.population,
            uses=invitation.uses,
            seconds=invitation.expires_seconds,
            label=invitation.label,
            made_by=operator.name,
        )

    token = await run_in_threadpool(make)
    deed.about = invitation.population
    deed.detail = invitation.model_dump(exclude={"population"})
    return {**invitation.model_dump(), "token": token}


@router.get("/invitations", dependencies=_READ, summary="List invitations")
async def get_invitations(context: Shared) -> dict[str, Any]:
    """Oldest first: for whom, how often used, and whether anybody may still enrol with it; never a token."""
    return {"invitations": await run_in_threadpool(list_invitations, context.state)}


@router.post("/invitations/{invitation_id}/revoke", dependencies=_REMOVE, summary="Revoke an invitation")
async def post_invitation_revocation(
    invitation_id: Annotated[str, Path(pattern=f"^{INVITATION_ID}$")], context: Shared
) -> dict[str, Any]:
    """Nobody enrols with it any more. Devices that have stay."""
    await run_in_threadpool(revoke_invitation, context.state, invitation_id)
    return {"invitation": invitation_id, "state": "revoked"}


@router.get("/operator", dependencies=_READ, summary="Say who is asking")
async def get_operator(operator: AskedBy) -> dict[str, Any]:
    """Name and role of the operator whose key was shown, and its rights in words."""
    return {"operator": operator.name, "role": operator.role.value, "rights": _words(operator.role)}


@router.get("/operators", dependencies=_APPOINT, summary="List operators")
async def get_operators(context: Shared) -> dict[str, Any]:
    """Also those that were revoked or have expired; never a key."""
    return {"operators": await run_in_threadpool(list_operators, context.state)}


@router.post("/operators", dependencies=_APPOINT, summary="Add an operator", status_code=201)
async def post_operator(new: NewOperator, context: Shared, deed: TheDeed) -> dict[str, Any]:
    """Answers the key, this once: only its hash is kept."""
    deed.about, deed.detail = new.name, {"role": new.role.value, "expires_seconds": new.expires_seconds}
    key = await run_in_threadpool(add_operator, context.state, new.name, new.role, new.expires_seconds)
    return {"operator": new.name, "role": new.role.value, "expires_seconds": new.expires_seconds, "key": key}


@router.post("/operators/revoke", dependencies=_APPOINT, summary="Revoke an operator's key")
async def post_revocation(who: OperatorName, context: Shared, deed: TheDeed) -> dict[str, Any]:
    """From the next call on the key is worth nothing. What the operator did stays."""
    deed.about = who.name
    await run_in_threadpool(revoke_operator, context.state, who.name)
    return {"operator": who.name, "state": "revoked"}


@router.get("/audit", dependencies=_READ, summary="Read the audit log")
async def get_audit(
    context: Shared,
    limit: Annotated[int, Query(ge=1, le=MOST_ENTRIES)] = 100,
    since: Annotated[float | None, Query(allow_inf_nan=False, description="seconds since 1970 in UTC")] = None,
    before: Annotated[
        int | None, Query(ge=1, le=LARGEST_NUMBER, description="only entries with a smaller number")
    ] = None,
) -> dict[str, Any]:
    """Acts of operators, enrolments, and how many were refused; newest first. Texts are as they were given.

    `next` is the `before` of the page behind it, null where that is empty.
    """
    return await run_in_threadpool(audit_entries, context.state, limit, since=since, before=before)


def _words(role: Role) -> list[str]:
    return [right.value for right in Right if right in rights_of(role)]
