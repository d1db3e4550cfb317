"""Writes what operators do into the audit log, before they are told that it is done."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import Depends, Request, Response
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool

from edgefl.errors import StorageError
from edgefl_server.http.context import Context
from edgefl_server.roles import Operator
from edgefl_server.storage import note_act

__all__ = ["ActRoute", "Deed", "TheDeed"]

_log = logging.getLogger(__name__)
_AUDIT = "write the audit log"


@dataclass
class Deed:
    """Everything that the audit log says of a call beside who made it.

    Attributes:
        about: to what it was done; as the path says, unless the route knows better.
        detail: with which settings; no secret.
    """

    about: str = ""
    detail: dict[str, Any] = field(default_factory=dict)


class ActRoute(APIRoute):
    """A route of operators: all but GET is written into the audit log once it was done."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """See FastAPI."""
        handle = super().get_route_handler()
        if self.methods == {"GET"}:
            return handle

        async def handle_and_note(request: Request) -> Response:
            request.state.deed = deed = Deed(next(iter(request.path_params.values()), ""))
            answer = await handle(request)
            operator: Operator = request.scope["state"]["operator"]
            context: Context = request.app.state.context
            state, about = context.state, str(deed.about)
            try:
                await run_in_threadpool(
                    note_act, state, operator.name, operator.role.value, self._act(), about, deed.detail
                )
            except StorageError as error:
                # It is done: to answer with an error would be a lie. The log of the server has it.
                state.troubles.note("", _AUDIT, error, state.clock())
                _log.warning("%s did %s %s, which the audit log lacks: %s", operator.name, self._act(), about, error)
            else:
                state.troubles.clear("", _AUDIT)
            return answer

        return handle_and_note

    def _act(self) -> str:
        """The path in words: ``runs.stop``; what has no verb creates something."""
        words = [part for part in self.path.split("/")[2:] if not part.startswith("{")]
        return ".".join(words if len(words) > 1 else [*words, "create"])


async def _deed(request: Request) -> Deed:
    deed: Deed = request.state.deed
    return deed


TheDeed = Annotated[Deed, Depends(_deed)]
