"""The tables. A change here needs a module in `migrations/versions`."""

from __future__ import annotations

from typing import Any

import sqlalchemy
from sqlalchemy import JSON, BigInteger, Boolean, Float, ForeignKey, Index, Integer, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

__all__ = [
    "AssignmentRow",
    "DeviceRow",
    "FolderRow",
    "InvitationRow",
    "OutcomeRow",
    "RoundRow",
    "RunRow",
    "Table",
    "table",
]


class Table(DeclarativeBase):
    """Base of all tables; hashes are lower-case hexadecimal.

    Columns whose name ends in ``_clock`` hold seconds of the server's clock, which only grows: durations are
    differences of them. Those that end in ``_at`` hold dates for people, in seconds since 1970 in UTC.
    """


def table(rows: type[Table]) -> sqlalchemy.Table:
    """The table itself, for statements that concern no objects: of its class, SQLAlchemy looks for some to change."""
    found = rows.__table__
    assert isinstance(found, sqlalchemy.Table)
    return found


class FolderRow(Table):
    """One row: which state folder this is, how far its server has come, and the last reading of its clock."""

    __tablename__ = "folder"

    row: Mapped[int] = mapped_column(Integer, primary_key=True)
    folder: Mapped[str] = mapped_column(String(32))
    generation: Mapped[int] = mapped_column(BigInteger, default=0)
    """Rises with every start, and whenever a run or a round begins or ends. `folder.json` never holds a larger one."""
    clock: Mapped[float] = mapped_column(Float)
    date: Mapped[float] = mapped_column(Float)
    boot: Mapped[str] = mapped_column(String(64))
    boottime: Mapped[float] = mapped_column(Float)


class InvitationRow(Table):
    """A token with which devices enrol in a population. Only its hash is kept."""

    __tablename__ = "invitations"

    token_hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    population: Mapped[str] = mapped_column(String(64), index=True)
    created_at: Mapped[float] = mapped_column(Float)


class DeviceRow(Table):
    """An enrolled device. Only the hash of its secret is kept."""

    __tablename__ = "devices"

    device: Mapped[str] = mapped_column(String(32), primary_key=True)
    population: Mapped[str] = mapped_column(String(64), index=True)
    secret_hash: Mapped[str] = mapped_column(String(64))
    capabilities: Mapped[dict[str, Any]] = mapped_column(JSON)
    created_at: Mapped[float] = mapped_column(Float)
    doubled_at: Mapped[float | None] = mapped_column(Float)
    """When two devices were last seen to use this identity in turn."""


class RunRow(Table):
    """A training job."""

    __tablename__ = "runs"

    run: Mapped[str] = mapped_column(String(32), primary_key=True)
    name: Mapped[str] = mapped_column(String(64))
    population: Mapped[str] = mapped_column(String(64))
    state: Mapped[str] = mapped_column(String(16))
    why: Mapped[str] = mapped_column(String(500), default="")
    settings: Mapped[dict[str, Any]] = mapped_column(JSON)
    model_hash: Mapped[str] = mapped_column(String(64))
    graph_hash: Mapped[str] = mapped_column(String(64))
    layout_hash: Mapped[str] = mapped_column(String(64))
    weight_size: Mapped[int] = mapped_column(BigInteger)
    statistic_size: Mapped[int] = mapped_column(BigInteger)
    metrics: Mapped[list[Any]] = mapped_column(JSON)
    limits: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    """What the model file says about outcomes: `ModelLimits`."""
    initial_weights_hash: Mapped[str] = mapped_column(String(64))
    weights_hash: Mapped[str] = mapped_column(String(64))
    slots: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    """The strategy's slots by name, as hashes of vectors in the store of weights."""
    round: Mapped[int] = mapped_column(Integer)
    created_at: Mapped[float] = mapped_column(Float)
    created_clock: Mapped[float] = mapped_column(Float, default=0.0)
    """Which run came first, also when the wall clock was set back in between."""
    ended_at: Mapped[float | None] = mapped_column(Float)

    __table_args__ = (Index("runs_by_population_and_state", "population", "state"),)


class RoundRow(Table):
    """One round of a run."""

    __tablename__ = "rounds"

    run: Mapped[str] = mapped_column(ForeignKey("runs.run"), primary_key=True)
    number: Mapped[int] = mapped_column(Integer, primary_key=True)
    state: Mapped[str] = mapped_column(String(16), index=True)
    why: Mapped[str] = mapped_column(String(500), default="")
    base_weights_hash: Mapped[str] = mapped_column(String(64))
    base_slots: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    enrolled: Mapped[int] = mapped_column(Integer, default=0)
    """Devices of the population when the round closed; fixed then, so that folding again gives the same."""
    weights_hash: Mapped[str | None] = mapped_column(String(64))
    opened_at: Mapped[float] = mapped_column(Float)
    opened_clock: Mapped[float] = mapped_column(Float, default=0.0)
    started_clock: Mapped[float | None] = mapped_column(Float)
    ended_clock: Mapped[float | None] = mapped_column(Float)
    num_examples: Mapped[int | None] = mapped_column(BigInteger)
    metric_sums: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    diagnostics: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    pruned: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    """Counts of the outcomes whose rows are gone: ``{status: {reason: {disposition: count}}}``."""


class AssignmentRow(Table):
    """A task that was handed to a device."""

    __tablename__ = "assignments"

    task_id: Mapped[str] = mapped_column(String(100), primary_key=True)
    run: Mapped[str] = mapped_column(ForeignKey("runs.run"))
    round: Mapped[int] = mapped_column(Integer)
    device: Mapped[str] = mapped_column(ForeignKey("devices.device"))
    attempt: Mapped[int] = mapped_column(Integer)
    position: Mapped[int] = mapped_column(Integer)
    state: Mapped[str] = mapped_column(String(16))
    assigned_clock: Mapped[float] = mapped_column(Float, default=0.0)
    leased_until_clock: Mapped[float] = mapped_column(Float)
    ended_clock: Mapped[float] = mapped_column(Float, default=0.0)
    temporary: Mapped[bool] = mapped_column(Boolean, default=False)

    __table_args__ = (
        Index("assignments_by_round", "run", "round"),
        Index("assignments_by_device_and_state", "device", "state"),
    )


class OutcomeRow(Table):
    """An outcome that was answered with 202."""

    __tablename__ = "outcomes"

    task_id: Mapped[str] = mapped_column(ForeignKey("assignments.task_id"), primary_key=True)
    run: Mapped[str] = mapped_column(ForeignKey("runs.run"))
    round: Mapped[int] = mapped_column(Integer)
    digest: Mapped[str] = mapped_column(String(64), index=True)
    size: Mapped[int] = mapped_column(BigInteger)
    status: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str] = mapped_column(String(32))
    num_examples: Mapped[int] = mapped_column(BigInteger)
    disposition: Mapped[str] = mapped_column(String(16))
    trainer: Mapped[str] = mapped_column(String(200))
    accepted_at: Mapped[float] = mapped_column(Float)

    __table_args__ = (Index("outcomes_by_round", "run", "round"),)
