"""Says how the server itself goes: alive, ready, and in figures for Prometheus (https://prometheus.io)."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from edgefl.errors import StorageError
from edgefl.version import __version__
from edgefl_server.http.context import Context, Shared
from edgefl_server.storage import Figures, OpenRun, ServerState, bytes_on_disk, free_bytes, server_figures
from edgefl_server.storage.database import ReplacedDatabaseError
from edgefl_server.storage.tables import FolderRow

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import Metric

__all__ = ["router", "stored_bytes", "unready"]

router = APIRouter(tags=["health"])

_FRESH_SECONDS = 1.0
"""Anybody may ask whether the server is ready: one look at the database a second is enough for all."""
_SILENT_SECONDS = 90.0
"""Deadlines are looked at once a second, and in trouble once a minute."""
_SPARE_BYTES = 1 << 20
"""With less, hardly anything can be accepted."""
_OPENMETRICS = "application/openmetrics-text"
_SIZES_SECONDS = 30.0
"""Every file is looked at for the sizes of the folders, which takes its time with many."""


@dataclass
class _Remembered:
    """The latest answers to what would be dear to find out for each call."""

    looking: asyncio.Lock = field(default_factory=asyncio.Lock)
    looked_at: float = -_FRESH_SECONDS
    why: list[str] = field(default_factory=list)
    measured_at: float = -_SIZES_SECONDS
    sizes: dict[str, int] = field(default_factory=dict)
    telling: asyncio.Lock = field(default_factory=asyncio.Lock)
    told_at: float = -_FRESH_SECONDS
    told: dict[str, bytes] = field(default_factory=dict)
    """The metrics by their type."""


def _remembered(request: Request) -> _Remembered:
    state = request.app.state
    if not hasattr(state, "remembered"):
        state.remembered = _Remembered()
    found: _Remembered = state.remembered
    return found


def unready(state: ServerState, silent_seconds: float) -> list[str]:
    """Says why a server cannot do its work now, for anybody to read: no path is named. Nothing: it can.

    Args:
        state: the server's.
        silent_seconds: how long ago deadlines and folds were last looked at.
    """
    why = []
    try:
        state.database.require_in_place()
        with state.database.read() as session:
            session.get_one(FolderRow, 1)
    except ReplacedDatabaseError:
        why.append("database: its file was deleted or replaced")
    except Exception:  # whatever it is, it cannot be read; the log of whoever needs it says more
        why.append("database: it cannot be read")
    try:
        if free_bytes(state) < _SPARE_BYTES:
            why.append("folder: no space is left on its disk")
        elif not os.access(state.folder, os.W_OK):
            why.append("folder: it may not be written")
    except OSError:
        why.append("folder: it is not there")
    if silent_seconds > _SILENT_SECONDS:
        why.append(f"folding: deadlines and folds were last looked at {silent_seconds:.0f} s ago")
    return why


@router.get("/healthz", summary="Say that the server is alive")
async def get_health() -> dict[str, str]:
    """200 as long as the process answers; whether it can do its work says /readyz."""
    return {"status": "alive"}


@router.get("/readyz", summary="Say whether the server can do its work", responses={503: {"description": "and why"}})
async def get_readiness(request: Request, context: Shared) -> Response:
    """200 where the database and the folder can be used and what folds is alive; else 503, and why."""
    known = _remembered(request)
    async with known.looking:
        if time.monotonic() - known.looked_at >= _FRESH_SECONDS:
            silent = time.monotonic() - context.advanced_at
            known.why = await run_in_threadpool(unready, context.state, silent)
            known.looked_at = time.monotonic()
    if known.why:
        return JSONResponse({"status": "not ready", "why": known.why}, 503, {"Retry-After": "5"})
    return JSONResponse({"status": "ready", "why": []})


@router.get("/metrics", summary="Tell figures to Prometheus", response_class=Response)
async def get_metrics(request: Request, context: Shared) -> Response:
    """In the text format, or that of OpenMetrics for whoever asks for it. No label names a device."""
    # Not needed by a server that nobody asks.
    from prometheus_client.exposition import choose_encoder

    known = _remembered(request)
    # Of the two formats that there are: it would repeat whatever version somebody asks for.
    openmetrics = _OPENMETRICS in request.headers.get("Accept", "")
    encode, content_type = choose_encoder(_OPENMETRICS if openmetrics else "")
    if not context.metrics_public:
        return _metrics(encode(await _registry(request, context)), content_type)
    async with known.telling:  # anybody may ask
        if time.monotonic() - known.told_at >= _FRESH_SECONDS:
            known.told, known.told_at = {}, time.monotonic()
        if content_type not in known.told:
            known.told[content_type] = encode(await _registry(request, context))
        return _metrics(known.told[content_type], content_type)


def _metrics(content: bytes, content_type: str) -> Response:
    return Response(content, headers={"Content-Type": content_type})


async def _registry(request: Request, context: Context) -> CollectorRegistry:
    from prometheus_client import CollectorRegistry, ProcessCollector

    sizes = await stored_bytes(request, context)
    try:
        figures = await run_in_threadpool(server_figures, context.state)
    except StorageError:  # what is only in memory is told all the same
        figures = None
    waiting, families = context.work.waiting(), list[Any]()
    families += _of_process(context, waiting)
    families += _of_disk(context.state, sizes)
    if figures is not None:
        families += _of_runs(figures)
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(_Told(families))
    return registry


async def stored_bytes(request: Request, context: Context) -> dict[str, int]:
    """The sizes of what is kept, by kind, as they were at most 30 seconds ago."""
    known = _remembered(request)
    if time.monotonic() - known.measured_at >= _SIZES_SECONDS:
        known.measured_at = time.monotonic()
        known.sizes = await run_in_threadpool(bytes_on_disk, context.state)
    return known.sizes


class _Told:
    """A collector of what was found beforehand."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> list[Metric]:
        return self._families


def _of_process(context: Context, waiting: int) -> Iterator[Metric]:
    """Yields what is counted since the start of this process."""
    from prometheus_client.core import HistogramMetricFamily

    counted = context.counters
    yield _gauges("edgefl_build_info", "Always 1; the label is the version.", "version", {__version__: 1})
    yield _gauge("edgefl_devices_waiting", "Devices whose call for work is open now.", waiting)
    yield _counter("edgefl_tasks_sent", "Answers to a device that held a task.", counted.tasks)
    yield _counters("edgefl_outcomes_accepted", "Outcomes accepted, by how they ended.", "status", counted.outcomes)
    yield _counters("edgefl_outcomes_refused", "Outcomes refused, by the code.", "reason", counted.refused)
    yield _counters("edgefl_upload_bytes", "Bytes of accepted outcomes, by codec.", "codec", counted.upload_bytes)
    yield _counter("edgefl_download_bytes", "Bytes of models and weights sent to devices.", counted.download_bytes)
    yield HistogramMetricFamily(
        "edgefl_fold_duration_seconds",
        "How long it took to merge a round's updates.",
        buckets=counted.folds.buckets(),
        sum_value=counted.folds.total,
    )
    yield _counter("edgefl_folds_put_off", "Attempts to fold that will be made again.", counted.folds_put_off)
    troubles = context.state.troubles.count()
    yield _gauge("edgefl_troubles", "Things that do not work now; `edgefl run list` names them.", troubles)


def _of_disk(state: ServerState, sizes: dict[str, int]) -> Iterator[Metric]:
    yield _gauges("edgefl_stored_bytes", "Bytes in the state folder.", "kind", sizes)
    try:
        free = free_bytes(state)
    except OSError:
        return
    yield _gauge("edgefl_disk_free_bytes", "Space that is left on the disk of the state folder.", free)


def _of_runs(figures: Figures) -> Iterator[Metric]:
    """Yields what the database knows, also from before this process."""
    from prometheus_client.core import GaugeMetricFamily

    yield _gauges("edgefl_runs", "Runs, by state.", "state", figures.runs)
    yield _counters("edgefl_rounds", "Rounds that are over, by state.", "state", figures.rounds)
    yield _gauges("edgefl_devices_enrolled", "Devices that are enrolled.", "population", figures.devices)
    labels = ["run", "name"]
    shown: dict[str, tuple[str, Callable[[OpenRun], float | None]]] = {
        "round": ("The round under way of a run that is not over.", lambda each: each.round),
        "rounds": ("How many rounds such a run will have.", lambda each: each.rounds),
        "tasks_open": ("Tasks of such a run that devices have now.", lambda each: each.tasks_open),
        "training_loss": ("Loss of its latest round, as devices had it in training.", lambda each: each.loss),
    }
    for name, (text, value) in shown.items():
        family = GaugeMetricFamily(f"edgefl_run_{name}", text, labels=labels)
        for run in figures.open_runs:
            if (found := value(run)) is not None:
                family.add_metric([run.run, run.name], found)
        yield family


def _gauge(name: str, text: str, value: float) -> Metric:
    from prometheus_client.core import GaugeMetricFamily

    return GaugeMetricFamily(name, text, value=value)


def _counter(name: str, text: str, value: float) -> Metric:
    from prometheus_client.core import CounterMetricFamily

    return CounterMetricFamily(name, text, value=value)


def _gauges(name: str, text: str, label: str, values: Any) -> Metric:
    from prometheus_client.core import GaugeMetricFamily

    family = GaugeMetricFamily(name, text, labels=[label])
    for each, value in sorted(values.items()):
        family.add_metric([each], value)
    return family


def _counters(name: str, text: str, label: str, values: Any) -> Metric:
    from prometheus_client.core import CounterMetricFamily

    family = CounterMetricFamily(name, text, labels=[label])
    for each, value in sorted(values.items()):
        family.add_metric([each], value)
    return family
