"""The tables. A change here needs a module in `migrations/versions`.

What people call a round is three things here: a version of the weights is what a task starts from, a cohort is who was
asked together, and a fold is what is merged together. In a synchronous round they coincide.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy
from sqlalchemy import JSON, BigInteger, Boolean, Float, ForeignKey, Index, Integer, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

__all__ = [
    "AssignmentRow",
    "AuditRow",
    "CentralRow",
    "CohortRow",
    "DeviceRow",
    "Disposition",
    "FoldRow",
    "FolderRow",
    "InvitationRow",
    "OperatorRow",
    "OutcomeRow",
    "PopulationRow",
    "RunRow",
    "RunState",
    "Table",
    "VersionRow",
    "assignments",
    "cohorts",
    "devices",
    "folds",
    "outcomes",
    "populations",
    "runs",
    "table",
    "versions",
]


class Table(DeclarativeBase):
    """Base of all tables; hashes are lower-case hexadecimal.

    Columns whose name ends in ``_clock`` hold seconds of the server's clock, which only grows: durations are
    differences of them. Those that end in ``_at`` hold dates for people, in seconds since 1970 in UTC.
    """


class RunState:
    """The values of a run's ``state``."""

    ACTIVE, DONE, FAILED, STOPPED = "active", "done", "failed", "stopped"
    PAUSED = "paused"
    """It hands out nothing, takes what devices are at, and its deadlines stand still, until it is resumed."""
    GOING_ON = (ACTIVE, PAUSED)
    """Those of a run that is not over."""
    RESTING = "resting"
    """A run that evaluates another one's weights waits for newer ones."""


class Disposition:
    """The values of an accepted outcome's ``disposition``."""

    ACCEPTED = "accepted"
    """Will be folded when its fold closes."""
    FOLDED = "folded"
    """Is part of the weights."""
    DISCARDED = "discarded"
    """Its fold failed or was stopped."""
    DAMAGED = "damaged"
    """It was accepted, and its file was gone or damaged when its fold was merged without it."""
    STALE = "stale"
    """It began from weights that were too many versions behind when it came: no fold has it."""
    NOTED = "noted"
    """The device declined or failed: there is nothing to fold."""


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
    generation: Mapped[int] = mapped_column(BigInteger)
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
    label: Mapped[str] = mapped_column(String(200), default="")
    made_by: Mapped[str] = mapped_column(String(64), default="")
    """The operator's name; empty: nobody kept it."""
    uses: Mapped[int | None] = mapped_column(Integer)
    """The number of devices that may enrol with it; None: any."""
    used: Mapped[int] = mapped_column(Integer, default=0)
    expires_at: Mapped[float | None] = mapped_column(Float)
    revoked_at: Mapped[float | None] = mapped_column(Float)


class OperatorRow(Table):
    """Somebody who may ask the server as an operator. Only the hash of the key is kept."""

    __tablename__ = "operators"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    role: Mapped[str] = mapped_column(String(16))
    key_hash: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[float] = mapped_column(Float)
    expires_at: Mapped[float | None] = mapped_column(Float)
    revoked_at: Mapped[float | None] = mapped_column(Float)

    __table_args__ = (Index("operators_by_key", "key_hash", unique=True),)


class AuditRow(Table):
    """An act of an operator's, an enrolment, or refusals of some minutes. Triggers keep rows from being changed."""

    __tablename__ = "audit"

    number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    at: Mapped[float] = mapped_column(Float)
    who: Mapped[str] = mapped_column(String(64))
    """The operator's name, or the device's id; empty: strangers."""
    role: Mapped[str] = mapped_column(String(16))
    act: Mapped[str] = mapped_column(String(64))
    about: Mapped[str] = mapped_column(String(128))
    detail: Mapped[dict[str, Any]] = mapped_column(JSON)

    __table_args__ = (Index("audit_by_date", "at"), {"sqlite_autoincrement": True})


class DeviceRow(Table):
    """An enrolled device. Only the hash of its secret is kept."""

    __tablename__ = "devices"

    device: Mapped[str] = mapped_column(String(32), primary_key=True)
    population: Mapped[str] = mapped_column(String(64), index=True)
    secret_hash: Mapped[str] = mapped_column(String(64))
    capabilities: Mapped[dict[str, Any]] = mapped_column(JSON)
    public_key: Mapped[str | None] = mapped_column(String(684))
    """A SubjectPublicKeyInfo in base64, where the device has said one: for devices to agree on keys by."""
    created_at: Mapped[float] = mapped_column(Float)
    doubled_at: Mapped[float | None] = mapped_column(Float)
    """The date at which two devices were last seen to use this identity in turn."""
    tags: Mapped[list[str]] = mapped_column(JSON, default=list)
    seen_at: Mapped[float | None] = mapped_column(Float)
    """The date of its last call, up to some minutes ago; see `Seen`."""
    blocked_at: Mapped[float | None] = mapped_column(Float)
    removed_at: Mapped[float | None] = mapped_column(Float)
    """Since when only its id is left, for the tasks that were folded."""
    outcomes_a_day: Mapped[int | None] = mapped_column(Integer)
    bytes_a_day: Mapped[int | None] = mapped_column(BigInteger)


class PopulationRow(Table):
    """The number of devices of a population, so that no decision counts them."""

    __tablename__ = "populations"

    population: Mapped[str] = mapped_column(String(64), primary_key=True)
    devices: Mapped[int] = mapped_column(Integer)


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
    limits: Mapped[dict[str, Any]] = mapped_column(JSON)
    """The limits that follow from the model file: `ModelLimits`."""
    version: Mapped[int] = mapped_column(Integer)
    """The newest version of the weights, from which tasks start that are handed out now."""
    cohort: Mapped[int] = mapped_column(Integer)
    """The latest cohort: the one that is asked, while the run is active."""
    fold: Mapped[int] = mapped_column(Integer)
    """The latest fold: the one that the cohort works for."""
    accepted: Mapped[int] = mapped_column(BigInteger)
    """The number of outcomes accepted that hold an update: the place of the latest in their order."""
    served: Mapped[int] = mapped_column(BigInteger, default=0)
    """The number of tasks handed out, as far as the runs of a population share its devices by it."""
    paused_clock: Mapped[float | None] = mapped_column(Float)
    """Since when it pauses."""
    created_at: Mapped[float] = mapped_column(Float)
    created_clock: Mapped[float] = mapped_column(Float)
    """Says which run came first, also when the wall clock was set back in between."""
    ended_at: Mapped[float | None] = mapped_column(Float)
    evaluates: Mapped[str] = mapped_column(String(32), default="")
    """The run of which it evaluates versions, each in a cohort of its own; empty: none."""
    evaluation_data: Mapped[str] = mapped_column(String(64), default="")
    """The hash of the operator's data on which versions are evaluated; empty: there is none."""

    __table_args__ = (
        Index("runs_by_population_and_state", "population", "state"),
        Index("runs_by_evaluated", "evaluates"),
    )


class VersionRow(Table):
    """A version of a run's weights: what a task starts from."""

    __tablename__ = "versions"

    run: Mapped[str] = mapped_column(ForeignKey("runs.run"), primary_key=True)
    number: Mapped[int] = mapped_column(Integer, primary_key=True)
    fold: Mapped[int] = mapped_column(Integer)
    """The fold that made it, or after which it was gone back to; 0: it is the initial one."""
    parent: Mapped[int | None] = mapped_column(Integer)
    """The version that it came from: the one before, or an earlier one that was gone back to, whose weights it has."""
    made_at: Mapped[float | None] = mapped_column(Float)
    weights_hash: Mapped[str] = mapped_column(String(64))
    slots: Mapped[dict[str, Any]] = mapped_column(JSON)
    """The strategy's slots by name, as hashes of vectors in the store of weights."""


class CentralRow(Table):
    """The evaluation of a version on the operator's data."""

    __tablename__ = "central_evaluations"

    run: Mapped[str] = mapped_column(ForeignKey("runs.run"), primary_key=True)
    version: Mapped[int] = mapped_column(Integer, primary_key=True)
    state: Mapped[str] = mapped_column(String(16))
    why: Mapped[str] = mapped_column(String(500))
    examples: Mapped[int] = mapped_column(BigInteger)
    metrics: Mapped[dict[str, Any]] = mapped_column(JSON)
    ended_at: Mapped[float] = mapped_column(Float)


class CohortRow(Table):
    """Devices that were asked together: when, and the numbers of their tasks, so that no decision counts them."""

    __tablename__ = "cohorts"

    run: Mapped[str] = mapped_column(ForeignKey("runs.run"), primary_key=True)
    number: Mapped[int] = mapped_column(Integer, primary_key=True)
    opened_clock: Mapped[float] = mapped_column(Float)
    started_clock: Mapped[float | None] = mapped_column(Float)
    open: Mapped[int] = mapped_column(Integer)
    done: Mapped[int] = mapped_column(Integer)
    failed_devices: Mapped[int] = mapped_column(Integer)
    failed_attempts: Mapped[int] = mapped_column(Integer)
    admits: Mapped[dict[str, Any]] = mapped_column(JSON)
    """Says up to which key devices are admitted, window after window: an `Admission`; empty: all are."""


class FoldRow(Table):
    """Outcomes that are merged together."""

    __tablename__ = "folds"

    run: Mapped[str] = mapped_column(ForeignKey("runs.run"), primary_key=True)
    number: Mapped[int] = mapped_column(Integer, primary_key=True)
    version: Mapped[int] = mapped_column(Integer)
    """The version of the weights that it is merged into."""
    state: Mapped[str] = mapped_column(String(16), index=True)
    why: Mapped[str] = mapped_column(String(500))
    enrolled: Mapped[int] = mapped_column(Integer)
    """Devices of the population when it began to be merged; fixed then, so that doing it again gives the same."""
    opened_at: Mapped[float] = mapped_column(Float)
    opened_clock: Mapped[float] = mapped_column(Float)
    ended_clock: Mapped[float | None] = mapped_column(Float)
    num_examples: Mapped[int | None] = mapped_column(BigInteger)
    devices: Mapped[int | None] = mapped_column(Integer)
    """The number of devices of which it has updates."""
    bytes_up: Mapped[int | None] = mapped_column(BigInteger)
    """The size of the messages in which they came."""
    bytes_down: Mapped[int | None] = mapped_column(BigInteger)
    """The bytes that devices fetched for the run since the fold before: no figure of its updates, another each time."""
    metric_sums: Mapped[dict[str, Any]] = mapped_column(JSON)
    diagnostics: Mapped[dict[str, Any]] = mapped_column(JSON)
    findings: Mapped[dict[str, Any]] = mapped_column(JSON)
    """Says what a fold that makes no weights has found beside its metrics."""
    pruned: Mapped[dict[str, Any]] = mapped_column(JSON)
    """Counts of the outcomes whose rows are gone: ``{status: {reason: {disposition: count}}}``."""


class AssignmentRow(Table):
    """A task that was handed to a device."""

    __tablename__ = "assignments"

    task_id: Mapped[str] = mapped_column(String(100), primary_key=True)
    run: Mapped[str] = mapped_column(ForeignKey("runs.run"))
    cohort: Mapped[int] = mapped_column(Integer)
    version: Mapped[int] = mapped_column(Integer)
    """The version of the weights that it starts from."""
    fold: Mapped[int] = mapped_column(Integer)
    """The fold for which it was handed out."""
    device: Mapped[str] = mapped_column(ForeignKey("devices.device"))
    attempt: Mapped[int] = mapped_column(Integer)
    turn: Mapped[int] = mapped_column(Integer)
    """The number of outcomes of the device in the cohort that were accepted before."""
    continues: Mapped[str] = mapped_column(String(100))
    """The device's latest accepted task of the run then, from the end of which it goes on; empty: there was none."""
    state: Mapped[str] = mapped_column(String(16))
    assigned_clock: Mapped[float] = mapped_column(Float)
    ends_clock: Mapped[float] = mapped_column(Float)
    leased_until_clock: Mapped[float] = mapped_column(Float)
    leased_to_the_end: Mapped[bool] = mapped_column(Boolean)
    ended_clock: Mapped[float] = mapped_column(Float)
    temporary: Mapped[bool] = mapped_column(Boolean)
    failed_before: Mapped[bool] = mapped_column(Boolean)

    __table_args__ = (
        # Which lease ran out longest ago, and which tasks are overdue, is the beginning of a range.
        Index("assignments_by_lease", "run", "cohort", "state", "leased_to_the_end", "leased_until_clock", "device"),
        Index("assignments_by_device", "device", "run", "cohort", "attempt"),
        Index("assignments_by_device_and_state", "device", "state", "run"),
        Index("assignments_by_fold", "run", "fold"),
    )


class OutcomeRow(Table):
    """An outcome that was answered with 202."""

    __tablename__ = "outcomes"

    task_id: Mapped[str] = mapped_column(ForeignKey("assignments.task_id"), primary_key=True)
    run: Mapped[str] = mapped_column(ForeignKey("runs.run"))
    fold: Mapped[int] = mapped_column(Integer)
    """The fold that it belongs to."""
    device: Mapped[str] = mapped_column(ForeignKey("devices.device"))
    digest: Mapped[str] = mapped_column(String(64), index=True)
    size: Mapped[int] = mapped_column(BigInteger)
    status: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str] = mapped_column(String(32))
    num_examples: Mapped[int] = mapped_column(BigInteger)
    disposition: Mapped[str] = mapped_column(String(16))
    trainer: Mapped[str] = mapped_column(String(200))
    accepted: Mapped[int] = mapped_column(BigInteger)
    """Its place in the order in which the run's updates were accepted, from 1; 0: it holds none."""
    accepted_at: Mapped[float] = mapped_column(Float)

    __table_args__ = (
        Index("outcomes_by_fold", "run", "fold"),
        Index("outcomes_by_device", "device", "run", "disposition", "accepted"),
    )


# Without the classes, for statements that concern no objects: most of what the server does.
assignments = table(AssignmentRow)
cohorts = table(CohortRow)
devices = table(DeviceRow)
folds = table(FoldRow)
outcomes = table(OutcomeRow)
populations = table(PopulationRow)
runs = table(RunRow)
versions = table(VersionRow)
