"""Reads what a selection goes by: what is known of devices from the cohorts before."""

from __future__ import annotations

import json
import math
from typing import Any, Protocol

from sqlalchemy import Text, and_, bindparam, cast, func, literal, select

from edgefl_server.aggregation import (
    FIRST_COME,
    Admission,
    Candidate,
    RunSettings,
    admission_of,
    key_of,
    root_device_of,
)
from edgefl_server.storage.sessions import Session
from edgefl_server.storage.statements import Row, Statement
from edgefl_server.storage.tables import DeviceRow, assignments, outcomes, runs, table

__all__ = ["admission", "device_key"]

_devices = table(DeviceRow)
_SETTINGS = Statement(
    select(runs.c.population, cast(runs.c.settings, Text).label("settings_text")).where(runs.c.run == bindparam("of"))
)
_DONE_BEFORE = and_(
    outcomes.c.run == bindparam("of_run"),
    outcomes.c.accepted > literal(0),
    assignments.c.cohort < bindparam("of_cohort"),
)
_FACTS = (
    outcomes.c.device,
    outcomes.c.num_examples,
    assignments.c.cohort,
    (assignments.c.ended_clock - assignments.c.assigned_clock).label("seconds"),
)
_LATEST = (
    select(outcomes.c.device, func.max(outcomes.c.accepted).label("accepted"))
    .join(assignments, assignments.c.task_id == outcomes.c.task_id)
    .where(_DONE_BEFORE)
    .group_by(outcomes.c.device)
    .subquery()
)
_ALL = Statement(
    select(*_FACTS)
    .join(assignments, assignments.c.task_id == outcomes.c.task_id)
    .join(_LATEST, and_(_LATEST.c.device == outcomes.c.device, _LATEST.c.accepted == outcomes.c.accepted))
    .where(_DONE_BEFORE)
)
_ONE = Statement(
    select(*_FACTS)
    .join(assignments, assignments.c.task_id == outcomes.c.task_id)
    .where(_DONE_BEFORE, outcomes.c.device == bindparam("device"))
    .order_by(outcomes.c.accepted.desc())
    .limit(1)
)
_ENROLLED = Statement(
    select(_devices.c.device, cast(_devices.c.capabilities, Text).label("capabilities_text")).where(
        _devices.c.population == bindparam("population"),
        # Nobody waits for those that will not come.
        _devices.c.removed_at.is_(None),
        _devices.c.blocked_at.is_(None),
    )
)


class _Asked(Protocol):
    """The part of a `Gathering` that is needed here."""

    @property
    def run(self) -> str: ...
    @property
    def cohort(self) -> int: ...
    @property
    def settings(self) -> RunSettings: ...
    @property
    def standing(self) -> Any: ...


def admission(session: Session, run: str, cohort: int) -> dict[str, Any]:
    """Says whom a cohort that is opened now admits when, as plain values; empty: whoever asks first.

    It looks at all devices of the population, once for each cohort.
    """
    row = session.execute(_SETTINGS, {"of": run}).one()
    settings = RunSettings.from_json(json.loads(row.settings_text))
    if settings.selection == FIRST_COME:
        return {}
    known = {each.device: each for each in session.execute(_ALL, {"of_run": run, "of_cohort": cohort})}
    usual = math.fsum(each.num_examples for each in known.values()) / len(known) if known else 1.0
    keys = [
        key_of(
            _candidate(each.device, json.loads(each.capabilities_text), known.get(each.device), usual),
            settings,
            settings.effective_seed,
            cohort,
        )
        for each in session.execute(_ENROLLED, {"population": row.population})
        if each.device != root_device_of(settings)  # it is asked in any case, and takes nobody's place
    ]
    return admission_of(keys, settings.cohort_size, usual, settings).to_json()


def device_key(session: Session, of: _Asked, device: DeviceRow) -> float:
    """A device's key in the cohort that is asked: the one that `admission` saw, or would have seen."""
    found: Admission = of.standing.admission
    settings = of.settings
    past = session.execute(_ONE, {"of_run": of.run, "of_cohort": of.cohort, "device": device.device}).one_or_none()
    candidate = _candidate(device.device, device.capabilities, past, found.usual)
    return key_of(candidate, settings, settings.effective_seed, of.cohort)


def _candidate(device: str, capabilities: Any, past: Row | None, usual: float) -> Candidate:
    said = capabilities if isinstance(capabilities, dict) else {}
    if past is None:
        return Candidate(device, usual, capabilities=said)
    return Candidate(device, past.num_examples, past.cohort, max(0.0, past.seconds), said)
