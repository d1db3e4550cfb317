"""The calls about operators themselves: who there is, and what each may do."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool

from edgefl_server.http.context import AskedBy, Shared, needs
from edgefl_server.roles import Right, Role, rights_of
from edgefl_server.storage import add_operator, list_operators, revoke_operator

__all__ = ["router"]

router = APIRouter(prefix="/v1", tags=["people"])

_READ, _APPOINT = [needs(Right.READ)], [needs(Right.APPOINT)]
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


@router.get("/operator", dependencies=_READ, summary="Say who is asking")
async def get_operator(operator: AskedBy) -> dict[str, Any]:
    """Name and role of the operator whose key was shown, and its rights in words."""
    return {"operator": operator.name, "role": operator.role.value, "rights": _words(operator.role)}


@router.get("/operators", dependencies=_APPOINT, summary="List operators")
async def get_operators(context: Shared) -> dict[str, Any]:
    """Also those that were revoked or have expired; never a key."""
    return {"operators": await run_in_threadpool(list_operators, context.state)}


@router.post("/operators", dependencies=_APPOINT, summary="Add an operator", status_code=201)
async def post_operator(new: NewOperator, context: Shared) -> dict[str, Any]:
    """Answers the key, this once: only its hash is kept."""
    key = await run_in_threadpool(add_operator, context.state, new.name, new.role, new.expires_seconds)
    return {"operator": new.name, "role": new.role.value, "expires_seconds": new.expires_seconds, "key": key}


@router.post("/operators/revoke", dependencies=_APPOINT, summary="Revoke an operator's key")
async def post_revocation(who: OperatorName, context: Shared) -> dict[str, Any]:
    """From the next call on the key is worth nothing. What the operator did stays."""
    await run_in_threadpool(revoke_operator, context.state, who.name)
    return {"operator": who.name, "state": "revoked"}


def _words(role: Role) -> list[str]:
    return [right.value for right in Right if right in rights_of(role)]
