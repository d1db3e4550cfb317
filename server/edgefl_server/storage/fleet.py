"""The devices of a server as its operators see them, and what these do with one: tag, block, limit, remove."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Text, cast, func, select
from sqlalchemy.exc import DatabaseError

from edgefl.errors import EdgeflError, InvalidSettingError
from edgefl.wire.words import DEVICE_BEGINNING, is_short_name
from edgefl_server.aggregation import AssignmentState, Concerned, FoldState
from edgefl_server.device_states import DeviceState
from edgefl_server.storage.barring import BLOCKED, REMOVED, Quota
from edgefl_server.storage.changes import apply
from edgefl_server.storage.cohorts import concerned_by_time
from edgefl_server.storage.found_tasks import find_task
from edgefl_server.storage.identities import shown_capabilities
from edgefl_server.storage.runs import after_failed_fold
from edgefl_server.storage.sessions import Session
from edgefl_server.storage.state import ServerState
from edgefl_server.storage.tables import AssignmentRow, DeviceRow, Disposition, OutcomeRow, PopulationRow

__all__ = [
    "MOST_LISTED",
    "UnknownDeviceError",
    "block_device",
    "get_device",
    "limit_device",
    "list_devices",
    "remove_device",
    "tag_device",
    "unblock_device",
]

MOST_LISTED = 1000
"""Devices of a page."""
_MOST_TAGS = 16
_MOST = 2**31 - 1
"""The largest number of a quota: 2 GiB a day, as a larger one limits nobody."""
_GIVE_BACK = "give back a device's task"


class UnknownDeviceError(EdgeflError):
    """There is no such device, or several whose ids begin so."""


def list_devices(
    state: ServerState,
    limit: int = 100,
    *,
    after: str = "",
    population: str | None = None,
    tag: str | None = None,
    status: str | None = None,
) -> dict[str, Any]:
    """A page of the devices, in the order of their ids; each page costs the same, however many there are before it.

    Args:
        state: the server's.
        limit: at most so many, and at most `MOST_LISTED`.
        after: only ids behind this one: the last of the page before.
        population: only its devices.
        tag: only those that have it.
        status: only those that are ``active``, ``blocked`` or ``removed``; None: all that are not removed.

    Returns:
        ``devices``, and ``next``: the `after` of the page behind it, None where that would be empty.
    """
    limit = min(limit, MOST_LISTED)
    query = select(DeviceRow).where(DeviceRow.device > after).order_by(DeviceRow.device).limit(limit + 1)
    if population is not None:
        query = query.where(DeviceRow.population == population)
    if tag is not None:
        _check_tag(tag)
        query = query.where(cast(DeviceRow.tags, Text).contains(f'"{tag}"', autoescape=True))
    removed, blocked = DeviceRow.removed_at.is_not(None), DeviceRow.blocked_at.is_not(None)
    query = query.where(removed if status == REMOVED else ~removed)
    if status in (BLOCKED, DeviceState.active):
        query = query.where(blocked if status == BLOCKED else ~blocked)
    with state.database.read() as session:
        rows = session.scalars(query).all()
        found = _told(state, session, rows[:limit])
    return {"devices": found, "next": found[-1]["device"] if len(rows) > limit else None}


def get_device(state: ServerState, which: str) -> dict[str, Any]:
    """One device; see `list_devices`.

    Raises:
        UnknownDeviceError: there is none.
    """
    with state.database.read() as session:
        (told,) = _told(state, session, [_find(session, which)])
        return told


def tag_device(state: ServerState, which: str, tags: Sequence[str]) -> str:
    """Gives a device these tags, in the place of those that it had; its id.

    Raises:
        UnknownDeviceError: there is none.
        InvalidSettingError: too many, or one has another form.
    """
    for tag in tags:
        _check_tag(tag)
    if len(tags) > _MOST_TAGS:
        raise InvalidSettingError(f"A device has at most {_MOST_TAGS} tags, got {len(tags)}.")
    with state.database.write() as session:
        row = _find(session, which)
        row.tags = sorted(set(tags))
        return row.device


def limit_device(state: ServerState, which: str, quota: Quota) -> str:
    """Limits what a device may send in a day; its id.

    Raises:
        UnknownDeviceError: there is none.
        InvalidSettingError: a number is below 0.
    """
    for number in (quota.outcomes, quota.bytes):
        if number is not None and not 0 <= number <= _MOST:
            raise InvalidSettingError(f"A quota expects 0 to {_MOST}, got {number}.")
    with state.barring.changing:
        with state.database.write() as session:
            row = _find(session, which)
            row.outcomes_a_day, row.bytes_a_day = quota.outcomes, quota.bytes
        state.barring.limit(row.device, quota)
    return row.device


def block_device(state: ServerState, which: str) -> str:
    """Lets a device do nothing until it is unblocked; others get the places of its tasks. What it sent before stays.

    Returns:
        Its id.

    Raises:
        UnknownDeviceError: there is none.
    """
    with state.barring.changing:
        with state.database.read() as session:
            device = _find(session, which).device
        # First, so that nothing is handed out behind the transaction that takes its tasks from it.
        with state.barring.barred(device, BLOCKED), state.database.write() as session:
            row = _find(session, device)
            row.blocked_at = row.blocked_at or state.date()
            _give_back(state, session, device)
    return device


def unblock_device(state: ServerState, which: str) -> str:
    """Lets a device go on; its id.

    Raises:
        UnknownDeviceError: there is none.
    """
    with state.barring.changing:
        with state.database.write() as session:
            row = _find(session, which)
            row.blocked_at = None
        state.barring.let(row.device)
    return row.device


def remove_device(state: ServerState, which: str) -> dict[str, Any]:
    """Removes a device with all that it sent and that is not part of any weights yet.

    Its id stays, as folded tasks name it; nobody can enrol with it any more. What was folded is in the weights and in
    all that came of them: that cannot be taken out.

    Returns:
        Its id, how many outcomes were dropped, and how many are part of weights.

    Raises:
        UnknownDeviceError: there is none.
    """
    with state.barring.changing:
        with state.database.read() as session:
            device = _find(session, which).device
        with state.barring.barred(device, REMOVED), state.database.write() as session:
            row = _find(session, device)
            _give_back(state, session, device)
            row.secret_hash, row.capabilities, row.public_key, row.tags = "", {}, None, []
            row.doubled_at = row.blocked_at = row.seen_at = row.outcomes_a_day = row.bytes_a_day = None
            row.removed_at = state.date()
            population = session.get(PopulationRow, row.population)
            if population is not None:
                population.devices = max(0, population.devices - 1)
            kept = session.execute(
                select(OutcomeRow.digest, OutcomeRow.disposition).where(OutcomeRow.device == device)
            ).all()
        state.barring.limit(device, Quota())
    # From here on nothing of it is merged, whatever happens to the files.
    state.seen.forget(device)
    state.uploads.forget(device)
    for digest, disposition in kept:
        if disposition != Disposition.FOLDED:
            with contextlib.suppress(EdgeflError):  # it goes with its round
                state.outcomes.delete(digest)
    dropped = sum(disposition == Disposition.ACCEPTED for _, disposition in kept)
    folded = sum(disposition == Disposition.FOLDED for _, disposition in kept)
    return {"device": device, "state": REMOVED, "dropped": dropped, "folded": folded}


def _give_back(state: ServerState, session: Session, device: str) -> None:
    """Ends the open tasks of a device as if it had said that it is busy: they count for nothing."""
    open_ones = session.scalars(
        select(AssignmentRow.task_id).where(
            AssignmentRow.device == device, AssignmentRow.state == AssignmentState.OPEN.value
        )
    ).all()
    for task_id in open_ones:
        now = state.now()
        task = find_task(session, device, task_id, now.clock)
        try:
            if not task.is_wanted:
                continue
            of = task.gathering
            concerned = Concerned(task.assignment)
            if task.any_overdue or of.root:
                concerned = concerned_by_time(session, of, now.clock, task.assignment)
            change = of.schedule.settle(of.standing, concerned, AssignmentState.DECLINED, now.clock, temporary=True)
            rounds = of.settings.rounds
        except DatabaseError:
            raise
        except Exception as error:  # of a run that cannot be read: the lease ends it
            state.troubles.note(task.run, _GIVE_BACK, error, now.clock)
            continue
        apply(session, of, change, now)
        if change.standing.state is FoldState.FAILED:
            after_failed_fold(session, of.run, of.fold, rounds, now)


def _find(session: Session, which: str) -> DeviceRow:
    rows: Sequence[DeviceRow] = ()
    if re.fullmatch(DEVICE_BEGINNING, which):
        query = select(DeviceRow).where(DeviceRow.device >= which, DeviceRow.device < f"{which}g")
        rows = session.scalars(query.order_by(DeviceRow.device).limit(2)).all()
    if len(rows) == 1 and rows[0].removed_at is None:
        return rows[0]
    if len(rows) == 2:
        raise UnknownDeviceError(f"Several devices have an id that begins with {which}.", hint="Give more of it.")
    removed = " any more: it was removed" if rows else ""
    raise UnknownDeviceError(
        f"There is no device {which!r:.80}{removed}.",
        hint="`edgefl server devices list` names all; 6 digits of an id suffice.",
    )


def _told(state: ServerState, session: Session, rows: Sequence[DeviceRow]) -> list[dict[str, Any]]:
    named = [row.device for row in rows]
    sent = select(OutcomeRow.device, func.count()).where(OutcomeRow.device.in_(named), OutcomeRow.status == "done")
    outcomes: dict[str, int] = dict(session.execute(sent.group_by(OutcomeRow.device)).all())
    busy = set(
        session.scalars(
            select(AssignmentRow.device).where(
                AssignmentRow.device.in_(named), AssignmentRow.state == AssignmentState.OPEN.value
            )
        )
    )
    return [
        {
            "device": row.device,
            "population": row.population,
            "state": REMOVED
            if row.removed_at is not None
            else BLOCKED
            if row.blocked_at is not None
            else DeviceState.active.value,
            "tags": list(row.tags),
            "enrolled_at": row.created_at,
            "seen_at": state.seen.of(row.device) or row.seen_at,
            "working": row.device in busy,
            "outcomes": outcomes.get(row.device, 0),
            "quota": {"outcomes": row.outcomes_a_day, "bytes": row.bytes_a_day},
            "capabilities": shown_capabilities(row.capabilities),
            "doubled_at": row.doubled_at,
        }
        for row in rows
    ]


def _check_tag(tag: str) -> None:
    if not is_short_name(tag):
        raise InvalidSettingError(
            f"A tag expects 1 to 64 letters, digits, dots, dashes and underscores, got {tag!r:.80}."
        )
