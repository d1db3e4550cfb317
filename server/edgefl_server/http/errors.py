"""Errors as JSON: ``{"error": {"code", "message", "hint"}}``, and which status each has (docs/protocol.md)."""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from edgefl.errors import (
    AuthenticationError,
    EdgeflError,
    FormatVersionError,
    InvalidSettingError,
    ModelFileError,
    OutcomeRefusedError,
    RunError,
    StorageError,
)
from edgefl.wire.messages import CONTROL_TYPE
from edgefl.wire.refusals import Refusal
from edgefl_server.aggregation import SettingError, run_of_task
from edgefl_server.option_names import converting_options, option_of
from edgefl_server.storage import (
    EnrolmentRefusedError,
    NameTakenError,
    NotWantedError,
    OperatorRefusedError,
    RunStateError,
    UnknownDeviceError,
    UnknownTaskError,
)
from edgefl_server.storage.troubles import STORE

__all__ = [
    "RequestError",
    "edgefl_error",
    "error_body",
    "install",
    "request_error",
    "response",
    "retry_after",
    "unexpected",
]

_log = logging.getLogger(__name__)


class RequestError(Exception):
    """A request that cannot be answered, with its status and code.

    Args:
        status: of HTTP.
        code: of docs/protocol.md.
        message: expected and got.
        hint: what to do.
        headers: further ones of the answer.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        hint: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.headers = dict(headers or {})
        self.status, self.code, self.message, self.hint = status, code, message, hint


def response(
    status: int, code: str, message: str, hint: str | None = None, headers: dict[str, str] | None = None
) -> JSONResponse:
    """An error as every error looks."""
    return JSONResponse(error_body(code, message, hint), status, headers, media_type=CONTROL_TYPE)


def error_body(code: str, message: str, hint: str | None = None) -> dict[str, dict[str, str | None]]:
    """The JSON of an error."""
    return {"error": {"code": code, "message": message, "hint": hint}}


def retry_after(lowest: int, highest: int) -> dict[str, str]:
    """The header that says when to come back; drawn, so that a fleet does not come back all at once."""
    return {"Retry-After": str(random.randint(lowest, highest))}


def install(app: FastAPI) -> None:
    """Makes the app answer its errors so."""
    app.add_exception_handler(RequestError, request_error)
    app.add_exception_handler(EdgeflError, edgefl_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, unexpected)


async def request_error(request: Request, error: Exception) -> JSONResponse:
    """Answers a request that ended with a `RequestError`."""
    assert isinstance(error, RequestError)
    headers = {"WWW-Authenticate": "Bearer"} if error.status == 401 else {}
    return response(error.status, error.code, error.message, error.hint, {**headers, **error.headers})


async def edgefl_error(request: Request, error: Exception) -> JSONResponse:
    """Answers a request that ended with an `EdgeflError`."""
    assert isinstance(error, EdgeflError)
    if isinstance(error, SettingError):
        error = error.naming(option_of)
    message, hint = error.message, error.hint
    if isinstance(error, EnrolmentRefusedError):
        statuses: dict[str, int] = {
            Refusal.WRONG_TOKEN: 401,
            Refusal.WRONG_POPULATION: 403,
            Refusal.INVITATION_OVER: 403,
        }
        return response(statuses.get(error.code, 409), error.code, message, hint)
    if isinstance(error, OperatorRefusedError):
        return response(401, Refusal.WRONG_TOKEN, message, hint, {"WWW-Authenticate": "Bearer"})
    if isinstance(error, AuthenticationError):
        return response(401, Refusal.UNKNOWN_DEVICE, message, hint, {"WWW-Authenticate": "Bearer"})
    if isinstance(error, NotWantedError):
        _count_refusal(request, error.code)
        return response(409, error.code, message, hint, retry_after(0, 2))
    if isinstance(error, UnknownDeviceError):
        return response(404, Refusal.NOT_FOUND, message, hint)
    if isinstance(error, UnknownTaskError):
        return response(404, Refusal.UNKNOWN_TASK, message, hint)
    if isinstance(error, OutcomeRefusedError):
        device = request.scope["state"]["device"].device
        if request.app.state.context.repeats.first(f"refused outcomes of device {device}: {error.reason}"):
            about = {"device": device, "run": run_of_task(_task_of(request))}
            _log.warning("refused %s: %s: %s", request.scope["path"], error.reason, message, extra=about)
        _count_refusal(request, error.reason)
        return response(422, error.reason, message, hint)
    if isinstance(error, NameTakenError):
        return response(409, Refusal.NAME_TAKEN, message, hint)
    if isinstance(error, RunStateError):
        return response(409, Refusal.ENDED, message, hint)
    if isinstance(error, RunError):
        return response(404, Refusal.UNKNOWN_RUN, message, hint)
    if isinstance(error, InvalidSettingError):
        hint = None if hint is None else converting_options(hint)
        return response(422, Refusal.INVALID_SETTING, message, hint)
    if isinstance(error, (ModelFileError, FormatVersionError)):
        return response(422, Refusal.BAD_MODEL_FILE, message, hint)
    if isinstance(error, StorageError):
        # Each call would say the same; the path is the operator's business, who finds it in the log and in `run list`.
        troubles, clock = request.app.state.context.state.troubles, request.app.state.context.state.clock
        troubles.note("", STORE, error, clock())
        if error.full:
            return response(
                507, Refusal.STORAGE_FULL, "The server's disk is full; nothing was kept.", None, retry_after(20, 60)
            )
        return response(
            503,
            Refusal.STORAGE_FAILED,
            "The server could not read or write what it keeps; nothing was kept.",
            None,
            retry_after(20, 60),
        )
    if request.app.state.context.repeats.first(f"unexpected {type(error).__name__}"):
        _log.error("unexpected %s: %s", type(error).__name__, error)
    return response(500, Refusal.INTERNAL, "The server failed; nothing was kept.", None, retry_after(5, 30))


def _count_refusal(request: Request, code: str) -> None:
    request.app.state.context.counters.refuse(_task_of(request), str(code))


def _task_of(request: Request) -> str:
    """The task that a call is about."""
    return str(request.scope["path"].rpartition("/tasks/")[2].partition("/")[0])


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    problems = [_problem(each) for each in error.errors()[:3]]
    return response(422, Refusal.MALFORMED, "; ".join(problems))


def _problem(found: Mapping[str, Any]) -> str:
    if found["type"] == "json_invalid":
        return f"The body is no JSON: {found['ctx']['error']} at character {found['loc'][-1]}"
    if found["loc"] == ("body",) and found["type"] in ("model_attributes_type", "missing"):
        return "The body is no JSON object, or its Content-Type is not application/json"
    return f"{'.'.join(map(str, found['loc']))}: {found['msg']}"


async def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    codes = {404: Refusal.NOT_FOUND, 405: Refusal.METHOD_NOT_ALLOWED, 400: Refusal.MALFORMED}
    # The web framework's word for bytes that are no text, or nested too deeply.
    message = "The body is no JSON." if "parsing the body" in str(error.detail) else str(error.detail)
    return response(error.status_code, codes.get(error.status_code, Refusal.REFUSED), message)


async def unexpected(request: Request, error: Exception) -> JSONResponse:
    """Answers a request that ended with a fault of this server, which is to be raised again: it is logged then."""
    return response(500, Refusal.INTERNAL, "The server failed; nothing was kept.", None, retry_after(5, 30))
