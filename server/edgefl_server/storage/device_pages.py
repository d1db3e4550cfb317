"""Devices for people to look at: a page at a time, and how often each took part; nothing that it sent."""

from __future__ import annotations

from typing import Any

from sqlalchemy import func, select

from edgefl_server.storage.state import ServerState
from edgefl_server.storage.tables import AssignmentRow, DeviceRow, Disposition, OutcomeRow

__all__ = ["devices_page"]

_MERGED = (Disposition.FOLDED, Disposition.ACCEPTED)


def devices_page(
    state: ServerState, limit: int, *, population: str | None = None, after: str = ""
) -> list[dict[str, Any]]:
    """Devices in the order of their ids.

    Args:
        state: the server's.
        limit: at most so many.
        population: only of this one.
        after: only those whose id comes after this.

    Returns:
        For each its id, population, when it enrolled, what it is (as it says of itself), and counts of its tasks:
        ``accepted`` updates, and those it ``gave_up``, as far as rows of old rounds are still there.
    """
    query = select(
        DeviceRow.device, DeviceRow.population, DeviceRow.capabilities, DeviceRow.created_at, DeviceRow.doubled_at
    ).where(DeviceRow.device > after)
    if population is not None:
        query = query.where(DeviceRow.population == population)
    with state.database.read() as session:
        rows = session.execute(query.order_by(DeviceRow.device).limit(limit)).all()
        ids = [row.device for row in rows]
        counts: dict[str, dict[str, int]] = {each: {"accepted": 0, "gave_up": 0} for each in ids}
        found = session.execute(
            select(OutcomeRow.device, OutcomeRow.disposition, func.count())
            .where(OutcomeRow.device.in_(ids))
            .group_by(OutcomeRow.device, OutcomeRow.disposition)
        )
        for device, disposition, count in found:
            name = "accepted" if disposition in _MERGED else "gave_up" if disposition == Disposition.NOTED else ""
            if name:
                counts[device][name] += count
        working = set(
            session.scalars(
                select(AssignmentRow.device).where(AssignmentRow.device.in_(ids), AssignmentRow.state == "open")
            )
        )
    return [
        {
            "device": row.device,
            "population": row.population,
            "enrolled_at": row.created_at,
            "kind": _kind(row.capabilities),
            "doubled": row.doubled_at is not None,
            "working": row.device in working,
            **counts[row.device],
        }
        for row in rows
    ]


def _kind(said: Any) -> str:
    """The machine in a few words; a device may say anything of itself that JSON can."""
    if not isinstance(said, dict):
        return ""
    memory = said.get("memory_bytes")
    parts = [said.get("machine"), said.get("system")]
    words = [each[:40] for each in parts if isinstance(each, str) and each]
    if isinstance(memory, int) and not isinstance(memory, bool) and memory > 0:
        words.append(f"{memory / 2**30:.3g} GiB" if memory >= 2**30 else f"{memory / 2**20:.0f} MiB")
    runtimes = said.get("runtimes")
    if isinstance(runtimes, list):
        words.extend(each[:40] for each in runtimes[:3] if isinstance(each, str))
    return ", ".join(words)
