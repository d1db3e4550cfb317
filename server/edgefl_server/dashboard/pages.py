"""The pages that show something, the parts of them that are fetched again and again, and what can be downloaded."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.concurrency import run_in_threadpool

from edgefl.wire.refusals import Refusal
from edgefl.wire.words import RANDOM_ID, SHORT_NAME
from edgefl_server.dashboard.curves import charts, history_table, rows_of
from edgefl_server.dashboard.doors import Page, SignedIn
from edgefl_server.dashboard.machines import machine_of
from edgefl_server.dashboard.new_run import sections
from edgefl_server.dashboard.rendering import page
from edgefl_server.device_states import DeviceState
from edgefl_server.http.context import LARGEST_NUMBER, Context, Shared
from edgefl_server.http.errors import RequestError
from edgefl_server.http.health import stored_bytes
from edgefl_server.http.operator_routes import RunId
from edgefl_server.roles import Right
from edgefl_server.storage import (
    audit_entries,
    free_bytes,
    glance,
    list_devices,
    populations,
    run_history,
    run_status,
    runs_summary,
    warnings,
    weights_of_round,
)

__all__ = ["router"]

router = APIRouter(route_class=Page, include_in_schema=False)

_SHOWN_RUNS = 200
_SHOWN_ROUNDS = 100
_ENTRIES = 50
_DEVICES = 50
_STATES = tuple(each.value for each in DeviceState)
_PIECE_BYTES = 1 << 18


def _runs(context: Context) -> dict[str, Any]:
    runs = runs_summary(context.state)
    going_on = [each for each in runs if each["state"] in ("active", "paused")]
    over = [each for each in runs if each["state"] not in ("active", "paused")]
    shown = (going_on[::-1] + over[::-1])[:_SHOWN_RUNS]
    return {"runs": shown, "left_out": len(runs) - len(shown), "warnings": warnings(context.state)}


@router.get("/")
async def get_runs(who: SignedIn, context: Shared) -> Response:
    """All runs: those under way first, then the newest."""
    return page("runs", {**await run_in_threadpool(_runs, context), **who.shown()})


@router.get("/parts/runs")
async def get_runs_part(who: SignedIn, context: Shared) -> Response:
    """The list alone."""
    return page("runs_part", await run_in_threadpool(_runs, context))


def _live(context: Context, run_id: str) -> dict[str, Any]:
    seen = glance(context.state, run_id)
    refused: dict[str, int] = dict(context.counters.refused_of_runs.get(seen["run"], {}))
    return {"run": seen, "refused": dict(sorted(refused.items()))}


@router.get("/runs/{run_id}")
async def get_run(run_id: RunId, who: SignedIn, context: Shared) -> Response:
    """A run: how it stands, its curves, its rounds."""

    def find() -> dict[str, Any]:
        live = _live(context, run_id)
        status = run_status(context.state, live["run"]["run"])
        return {**live, "status": status, **_rounds(context, live["run"]["run"])}

    return page("run", {**await run_in_threadpool(find), **who.shown()})


@router.get("/parts/runs/{run_id}")
async def get_run_part(run_id: RunId, who: SignedIn, context: Shared) -> Response:
    """The state and the round under way alone: what is asked for every two seconds, from a few rows."""
    return page("run_part", {**await run_in_threadpool(_live, context, run_id), **who.shown()})


def _rows(context: Context, run_id: str) -> list[dict[str, Any]]:
    status = run_status(context.state, run_id)
    return rows_of(status, _history(context, status))


def _history(context: Context, status: dict[str, Any]) -> dict[str, Any]:
    """The versions of a run; of one that cannot be read, none."""
    return run_history(context.state, status["run"]) if status["settings"] else {"versions": []}


def _rounds(context: Context, run_id: str) -> dict[str, Any]:
    rows = _rows(context, run_id)[::-1]
    columns: dict[tuple[str, str], None] = {}
    for part in ("training", "devices", "server"):
        for row in rows:
            columns.update(dict.fromkeys((name, part) for name in row[part]))
    totals = {name: sum(each[name] or 0 for each in rows) for name in ("bytes_up", "bytes_down")}
    return {
        "rows": rows[:_SHOWN_ROUNDS],
        "rows_left_out": max(0, len(rows) - _SHOWN_ROUNDS),
        "columns": sorted(columns, key=lambda each: each[0] != "loss"),  # the loss first, the others as they come
        "totals": totals,
    }


@router.get("/parts/runs/{run_id}/rounds")
async def get_rounds_part(run_id: RunId, who: SignedIn, context: Shared) -> Response:
    """The table of rounds alone: asked for when a round has ended."""
    return page("rounds_part", await run_in_threadpool(_rounds, context, run_id))


@router.get("/runs/{run_id}/curves.json")
async def get_curves(run_id: RunId, who: SignedIn, context: Shared) -> Response:
    """The columns that the curves are drawn from."""
    return JSONResponse({"charts": charts(await run_in_threadpool(_rows, context, run_id))})


@router.get("/runs/{run_id}/history.csv")
async def get_csv(run_id: RunId, who: SignedIn, context: Shared) -> Response:
    """The rounds as a table for a spreadsheet."""
    text = history_table(await run_in_threadpool(_rows, context, run_id))
    return _download(text.encode(), "text/csv; charset=utf-8", f"{run_id}.csv")


@router.get("/runs/{run_id}/report.json")
async def get_report(run_id: RunId, who: SignedIn, context: Shared) -> Response:
    """Settings, rounds, evaluations and versions, as `edgefl run status` and `history` tell them."""

    def find() -> bytes:
        status = run_status(context.state, run_id)
        return json.dumps({**status, **_history(context, status)}, indent=2).encode()

    return _download(await run_in_threadpool(find), "application/json", f"{run_id}.json")


@router.get("/runs/{run_id}/weights")
async def get_weights(
    run_id: RunId, who: SignedIn, context: Shared, round: Annotated[int | None, Query(ge=0, le=LARGEST_NUMBER)] = None
) -> Response:
    """The weights after a round, or the latest, as the .npy that `edgefl run weights` writes."""

    def find() -> tuple[Path, int]:
        digest, number = weights_of_round(context.state, run_id, round)
        path = context.state.weights.path(digest)
        if path is None:
            raise RequestError(404, Refusal.NOT_FOUND, f"The weights after round {number} are gone from the disk.")
        return path, number

    path, number = await run_in_threadpool(find)
    size = path.stat().st_size
    header = _npy_header(size // 4)

    def pieces() -> Iterator[bytes]:
        yield header
        with path.open("rb") as file:
            while piece := file.read(_PIECE_BYTES):
                yield piece

    answer = StreamingResponse(pieces(), media_type="application/octet-stream")
    answer.headers["Content-Disposition"] = f'attachment; filename="{run_id}-round-{number}.npy"'
    answer.headers["Content-Length"] = str(len(header) + size)
    return answer


def _npy_header(elements: int) -> bytes:
    file, described = io.BytesIO(), {"descr": "<f4", "fortran_order": False, "shape": (elements,)}
    np.lib.format.write_array_header_1_0(file, described)  # type: ignore[no-untyped-call]
    return file.getvalue()


def _download(content: bytes, kind: str, name: str) -> Response:
    return Response(content, media_type=kind, headers={"Content-Disposition": f'attachment; filename="{name}"'})


@router.get("/new")
async def get_new(who: SignedIn, context: Shared) -> Response:
    """The form for a new run."""
    who.require(Right.RUN)
    known = await run_in_threadpool(populations, context.state)
    return page("new", {"populations": known, "sections": sections(), **who.shown()})


@router.get("/devices")
async def get_devices(
    who: SignedIn,
    context: Shared,
    population: Annotated[str, Query(pattern=f"^({SHORT_NAME})?$")] = "",
    state: Annotated[str, Query(max_length=16)] = "",
    after: Annotated[str, Query(pattern=f"^({RANDOM_ID})?$")] = "",
) -> Response:
    """Devices, page by page; nothing of what one of them sent."""
    wanted = state if state in _STATES else None

    def find() -> dict[str, Any]:
        state = context.state
        found = list_devices(state, _DEVICES, after=after, population=population or None, status=wanted)
        devices = [{**each, "machine": machine_of(each["capabilities"])} for each in found["devices"]]
        return {"populations": populations(state), "devices": devices, "next": found["next"], "now": state.date()}

    asked = {"population": population, "state": wanted or "", "states": _STATES, "after": after}
    return page("devices", {**await run_in_threadpool(find), **asked, **who.shown()})


@router.get("/storage")
async def get_storage(request: Request, who: SignedIn, context: Shared) -> Response:
    """The sizes of what is kept, and how much space is left."""
    sizes = await stored_bytes(request, context)

    def find() -> dict[str, Any]:
        state = context.state
        return {
            "sizes": sizes,
            "total": sum(sizes.values()),
            "free": free_bytes(state),
            "warnings": warnings(state),
            "keep_days": state.keep_seconds / 86_400,
        }

    return page("storage", {**await run_in_threadpool(find), **who.shown()})


@router.get("/audit")
async def get_audit(
    who: SignedIn, context: Shared, before: Annotated[int | None, Query(ge=0, le=LARGEST_NUMBER)] = None
) -> Response:
    """The audit log, newest first, page by page."""
    found = await run_in_threadpool(audit_entries, context.state, _ENTRIES, before=before)
    shown = {"entries": found["audit"], "next": found["next"], "newest": before is None}
    return page("audit", {**shown, **who.shown()})
