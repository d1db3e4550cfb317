"""The context that all request handlers share, and who is asking."""

from __future__ import annotations

import hmac
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any, TypeVar

import anyio
from anyio.to_thread import run_sync
from fastapi import Depends, Request
from starlette.concurrency import run_in_threadpool

from edgefl.hashing import sha256
from edgefl.wire.calls import INSTANCE
from edgefl.wire.messages import Task
from edgefl.wire.refusals import Refusal
from edgefl_server.http.counters import Counters
from edgefl_server.http.errors import RequestError, retry_after
from edgefl_server.http.handing_out import HandingOut
from edgefl_server.http.rates import Network, RateLimit
from edgefl_server.http.receiving import Receiving
from edgefl_server.http.waiting import Bell, Outlook, WaitingLines
from edgefl_server.log_lines import Repeats
from edgefl_server.roles import ADMIN, Operator, Right, least_role
from edgefl_server.storage import (
    REMOVED,
    DeviceRow,
    Refusals,
    ServerState,
    devices_with_tasks,
    has_form_of_key,
    look_for_tasks,
    operator_with_key,
    tell_of_double,
    unknown_device,
    work_for,
)

__all__ = [
    "LARGEST_NUMBER",
    "AskedBy",
    "Caller",
    "Context",
    "Shared",
    "bearer",
    "caller",
    "needs",
    "not_the_operator",
    "require",
]

_log = logging.getLogger(__name__)
LARGEST_NUMBER = 2**31 - 1
"""Above any number of a round, a version or an entry: PostgreSQL could not even be asked for a larger one."""
_T = TypeVar("_T")
_LOOKED_UP_AT_ONCE = 4
"""Threads that read credentials; strangers who invent some must not take those of everybody else."""
_BLOCKED_SECONDS = (300, 600)
"""A device that is blocked asks again after so long, whether it still is."""


@dataclass
class Context:
    """The server behind the routes.

    Attributes:
        state: what is on disk.
        admin_token_hash: SHA-256 of the operator's token.
        max_outcome_bytes: largest outcome that is read.
        max_model_bytes: largest model file that is read.
        pins: what devices are told of the server's certificates; empty: nothing.
        device_rate: bounds how often a device asks.
        address_rate: bounds how often an address is refused: then it is not even looked at.
        trusted_proxies: networks whose ``X-Forwarded-For`` is believed.
        work: the devices that wait, to be called after anything that may give them work.
        handing_out: finds their tasks.
        folding: wakes what folds, after anything that may close a round.
        receiving: the bodies that are being written to files.
        refusals: counts who was not let in.
        repeats: bounds what devices can make the server log.
        tasked: devices that may have an open task, each with its id, or with what marks the latest look for one. No
            other device has one: only a device's own calls for work give it one.
        counters: what has happened since the start, for metrics.
        advanced_at: when deadlines and folds were last looked at without trouble, on a clock that only grows.
        metrics_public: whether everybody may read the metrics.
        lookups: bounds the threads that read credentials.
    """

    state: ServerState
    admin_token_hash: str
    max_outcome_bytes: int
    max_model_bytes: int
    pins: str = ""
    device_rate: RateLimit = field(default_factory=lambda: RateLimit(0))
    address_rate: RateLimit = field(default_factory=lambda: RateLimit(0))
    trusted_proxies: Sequence[Network] = ()
    work: WaitingLines = field(init=False)
    handing_out: HandingOut = field(init=False)
    folding: Bell = field(default_factory=Bell)
    receiving: Receiving = field(default_factory=Receiving)
    refusals: Refusals = field(init=False)
    repeats: Repeats = field(default_factory=lambda: Repeats(_log))
    tasked: dict[str, object] = field(default_factory=dict)
    counters: Counters = field(default_factory=Counters)
    advanced_at: float = field(default_factory=time.monotonic)
    metrics_public: bool = False
    lookups: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(_LOOKED_UP_AT_ONCE))

    def __post_init__(self) -> None:
        self.refusals = Refusals(self.state.clock)
        self.work = WaitingLines(lambda population: run_in_threadpool(self._outlook, population), self.repeats)
        self.handing_out = HandingOut(partial(look_for_tasks, self.state))
        self.tasked = dict.fromkeys(devices_with_tasks(self.state))

    def refuse(self, kind: str, address: str) -> None:
        """Counts somebody who was not let in."""
        self.address_rate.take(address)
        self.refusals.note(kind, address)

    async def look_up(self, function: Callable[[], _T]) -> _T:
        """Reads credentials in a thread, of which there are few for that."""
        return await run_sync(function, limiter=self.lookups)

    def operator(self, token: str) -> Operator:
        """Whoever has a token; reads from the database where it has the form of a key.

        Raises:
            RequestError: it is nobody's.
            OperatorRefusedError: it is nobody's, was revoked, or has expired.
        """
        # Never with nothing, whatever the server was started with.
        if token and hmac.compare_digest(self.admin_token_hash, sha256(token.encode())):
            return ADMIN
        if has_form_of_key(token):
            return operator_with_key(self.state, token)
        raise not_the_operator()

    async def find_task(self, device: DeviceRow, outlook: Outlook) -> Task | None:
        """The device's open task, else a new one, else None. Most find nothing, and read nothing from the database."""
        who = device.device
        if not outlook.places and who not in self.tasked and who not in outlook.roots:
            return None
        look = self.tasked[who] = object()
        found = await self.handing_out.find(device)
        if found.task is not None:
            self.tasked[who] = found.task.task_id
            self.work.taken(device.population)
        # Else another call of the device may have found one meanwhile.
        elif not found.has_task and self.tasked.get(who) is look:
            del self.tasked[who]
        return found.task

    def settled(self, device: str, task_id: str) -> None:
        """Call when a device's only open task was settled: it has none any more, unless it was given one meanwhile."""
        if self.tasked.get(device) == task_id:
            del self.tasked[device]

    def changed(self, population: str | None = None) -> None:
        """Call after a request that may have closed a round of a population or made room in one."""
        self.folding.ring()
        self.work.ring(population)

    def _outlook(self, population: str) -> Outlook:
        return Outlook(*work_for(self.state, population))


async def _context(request: Request) -> Context:  # FastAPI calls in a thread what is not async
    context: Context = request.app.state.context
    return context


Shared = Annotated[Context, Depends(_context)]


def bearer(request: Request) -> str:
    """The token of the Authorization header; empty when there is none."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def not_the_operator() -> RequestError:
    """The answer to whoever is no operator."""
    return RequestError(
        401,
        Refusal.WRONG_TOKEN,
        "This needs an operator's key.",
        "An admin makes one with `edgefl server operators add`: set it as EDGEFL_OPERATOR_KEY. On the server's own "
        "machine pass --state.",
    )


async def caller(request: Request, context: Shared) -> DeviceRow:
    """The device that is asking.

    Raises:
        AuthenticationError: it is none, or was removed.
        RequestError: it is blocked.
    """
    device: DeviceRow | None = request.scope["state"].get("device")
    if device is None:
        raise unknown_device()
    who, state = device.device, context.state
    barred = state.barring.why(who)
    if barred == REMOVED:
        raise unknown_device()
    state.seen.note(who, state.date())
    if barred is not None:
        raise RequestError(
            403,
            Refusal.BLOCKED,
            "The operator has blocked this device.",
            "It goes on by itself once the operator unblocks it.",
            retry_after(*_BLOCKED_SECONDS),
        )
    instance = request.headers.get(INSTANCE, "")
    if instance and state.doubles.notice(who, instance, state.clock()):
        await run_in_threadpool(tell_of_double, state, who)
    return device


async def _asked_by(request: Request) -> Operator:
    operator: Operator | None = request.scope["state"].get("operator")
    if operator is None:
        raise not_the_operator()
    return operator


Caller = Annotated[DeviceRow, Depends(caller)]
AskedBy = Annotated[Operator, Depends(_asked_by)]


def needs(right: Right) -> Any:
    """The dependency of a route that only some operators may call.

    Args:
        right: what they need.
    """

    async def check(operator: AskedBy, context: Shared) -> None:
        require(context, operator, right)

    return Depends(check)


def require(context: Context, operator: Operator, right: Right) -> None:
    """Refuses an operator who may not do something, and counts it for the audit log.

    Raises:
        RequestError: 403.
    """
    if not operator.may(right):
        context.refusals.note("role", operator.name)
        raise RequestError(
            403,
            Refusal.ROLE_NEEDED,
            f"{operator.name!r} has the role {operator.role} and may not {right.value}: that needs the role "
            f"{least_role(right)}.",
            "Ask an admin for a key with that role.",
        )
