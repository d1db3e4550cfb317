"""What every request handler shares, and who is asking."""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request
from starlette.concurrency import run_in_threadpool

from edgefl.hashing import sha256
from edgefl_server.http.errors import RequestError
from edgefl_server.http.waiting import WorkBell
from edgefl_server.storage import DeviceRow, ServerState, authenticate, notice_instance

__all__ = ["Caller", "Context", "Operator", "Shared", "bearer"]


@dataclass
class Context:
    """The server behind the routes.

    Attributes:
        state: what is on disk.
        admin_token_hash: SHA-256 of the operator's token.
        max_outcome_bytes: largest outcome that is read.
        max_model_bytes: largest model file that is read.
        work: wakes the devices that wait, after anything that may give them work.
        folding: wakes what folds, after anything that may close a round.
    """

    state: ServerState
    admin_token_hash: str
    max_outcome_bytes: int
    max_model_bytes: int
    work: WorkBell = field(default_factory=WorkBell)
    folding: WorkBell = field(default_factory=WorkBell)

    def changed(self) -> None:
        """Call after a request that may have closed a round or made room in one."""
        self.folding.ring()
        self.work.ring()


def _context(request: Request) -> Context:
    context: Context = request.app.state.context
    return context


Shared = Annotated[Context, Depends(_context)]


def bearer(request: Request) -> str:
    """The token of the Authorization header; empty when there is none."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


async def _caller(request: Request, context: Shared) -> DeviceRow:
    device, _, secret = bearer(request).partition(".")
    instance = request.headers.get("EdgeFL-Instance", "")
    return await run_in_threadpool(_authenticated, context.state, device, secret, instance)


def _authenticated(state: ServerState, device: str, secret: str, instance: str) -> DeviceRow:
    known = authenticate(state, device, secret)
    notice_instance(state, device, instance)
    return known


async def _operator(request: Request, context: Shared) -> None:
    token = bearer(request)
    # Never with nothing, whatever the server was started with.
    if not token or not hmac.compare_digest(context.admin_token_hash, sha256(token.encode())):
        raise RequestError(
            401,
            "wrong_token",
            "This needs the operator's token.",
            "It is in operator.json of the server's state folder; pass --state, or set EDGEFL_ADMIN_TOKEN.",
        )


Caller = Annotated[DeviceRow, Depends(_caller)]
Operator = Depends(_operator)
