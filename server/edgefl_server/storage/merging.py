"""Merges the outcomes that were accepted for a fold: reads them, and leaves out what cannot count."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import and_, bindparam, select

from edgefl.errors import OutcomeRefusedError, StorageError, storage_error
from edgefl.wire.differences import Difference
from edgefl.wire.messages import Correction
from edgefl_server.aggregation import (
    Believed,
    Change,
    Cohort,
    Contribution,
    Expectation,
    Folded,
    FoldError,
    FoldState,
    ModelLimits,
    Staleness,
    Standing,
    StrategyState,
    Update,
    apart,
    broadcast,
    decode_outcome,
    demand_for,
    fold,
    fold_evaluations,
    fold_seed,
    fold_statistics,
    in_order,
    strategy_for,
    validate,
    without_basis,
    without_residual,
)
from edgefl_server.storage.blobs import DamagedBlobError
from edgefl_server.storage.cohorts import Gathering, load_fold
from edgefl_server.storage.placements import DamagedVectorError
from edgefl_server.storage.runs import metrics_of
from edgefl_server.storage.sessions import Session
from edgefl_server.storage.state import ServerState, get_vector
from edgefl_server.storage.statements import Row, Statement
from edgefl_server.storage.tables import (
    Disposition,
    FoldRow,
    RunRow,
    VersionRow,
    assignments,
    devices,
    outcomes,
    versions,
)

__all__ = ["Merged", "Work", "load_work", "merge", "starting_point"]

_log = logging.getLogger(__name__)
_BASES = outcomes.alias("bases")
_OF_FOLD = Statement(
    select(
        outcomes.c.task_id,
        outcomes.c.device,
        outcomes.c.digest,
        outcomes.c.size,
        outcomes.c.num_examples,
        outcomes.c.accepted,
        versions.c.weights_hash,
        versions.c.number.label("version"),
        assignments.c.continues,
        _BASES.c.disposition.label("basis"),
        devices.c.removed_at,
    )
    .join(devices, devices.c.device == outcomes.c.device)
    .join(assignments, assignments.c.task_id == outcomes.c.task_id)
    .outerjoin(_BASES, _BASES.c.task_id == assignments.c.continues)
    .join(versions, and_(versions.c.run == assignments.c.run, versions.c.number == assignments.c.version))
    .where(
        outcomes.c.run == bindparam("run"),
        outcomes.c.fold == bindparam("fold"),
        outcomes.c.disposition == Disposition.ACCEPTED,
    )
)


class _DamagedOutcomeError(Exception):
    """The accepted outcome of the task that it names is not what was accepted."""


@dataclass(frozen=True)
class Work:
    """A fold that is to be merged, as the database has it.

    Attributes:
        of: the fold, and how it stands.
        why: for which reason it closed.
        enrolled: how many devices the population had then.
        run: the run's row.
        version: the row of the weights that it is merged into.
        accepted: a row for each accepted outcome.
    """

    of: Gathering
    why: str
    enrolled: int
    run: Row
    version: Row
    accepted: Sequence[Row]


@dataclass(frozen=True)
class Merged:
    """The result of merging a fold.

    Attributes:
        change: how it stands with what is left; FAILED when that is too little or nothing to go on from.
        lost: tasks whose outcomes do not count, by their disposition from now on.
        intact: the rows of the outcomes that count, that of the root device among them.
        folded: the new weights; None when the fold failed.
        difference: to the weights before; None where devices fetch whole weights.
    """

    change: Change
    lost: Mapping[str, str]
    intact: Sequence[Row]
    folded: Folded | None
    difference: Difference | None = None


def load_work(session: Session, run_id: str, number: int) -> Work:
    """Reads what a fold is made of."""
    run = session.row(RunRow, run=run_id)
    row = session.row(FoldRow, run=run_id, number=number)
    version = session.row(VersionRow, run=run_id, number=run.version)
    accepted = session.execute(_OF_FOLD, {"run": run_id, "fold": number}).all()
    return Work(load_fold(session, run_id, number), row.why, row.enrolled, run, version, accepted)


def starting_point(state: ServerState, work: Work) -> StrategyState:
    """Reads what the fold is merged into.

    Raises:
        DamagedBlobError: it is not what was kept.
    """
    slots = {name: get_vector(state, digest) for name, digest in work.version.slots.items()}
    return StrategyState(get_vector(state, work.version.weights_hash), work.run.weight_size, slots)


def merge(state: ServerState, work: Work, before: StrategyState, closed: Standing) -> Merged:
    """Merges a fold, without those of its outcomes that are damaged or go on from others that do not count.

    Args:
        state: the server's; temporary files lie in its folder.
        work: what the fold is made of.
        before: from `starting_point`.
        closed: how the fold stands.

    Raises:
        StorageError: a temporary file cannot be written.
    """
    schedule, settings = work.of.schedule, work.of.settings
    strategy = strategy_for(settings)
    believed = _believed(work)
    cohort, root = Cohort(work.enrolled, fold_seed(work.of.settings.effective_seed, work.of.fold)), work.of.root
    # What a device remembers goes into what it sends.
    remembers = demand_for(settings).correction is not Correction.NONE or believed.limits.local
    bases = {each.task_id: each.continues for each in work.accepted} if remembers else {}
    gone = {each.continues for each in work.accepted if each.basis in (Disposition.DISCARDED, Disposition.DAMAGED)}
    damaged: set[str] = set()
    removed = {each.task_id for each in work.accepted if each.removed_at is not None}
    while True:
        baseless = without_basis(bases, gone | damaged | removed) - damaged - removed
        lost = {
            **dict.fromkeys(sorted(damaged), Disposition.DAMAGED),
            **dict.fromkeys(sorted(baseless | removed), Disposition.DISCARDED),
        }
        intact = [each for each in work.accepted if each.task_id not in lost]
        fleet, rooted = apart(intact, root, lambda each: str(each.device))
        fewer = len([each for each in work.accepted if each.task_id in lost and each.device != root])
        change = schedule.lose(closed, fewer, _left_out(damaged, baseless, removed)) if fewer else Change(closed)
        if root and rooted is None:
            change = _failed(change, f"there is no update of the root device: {_left_out(damaged, baseless, removed)}")
        if change.standing.state is FoldState.FAILED:
            return Merged(change, lost, intact, None)
        contributions = [_contribution(state, work, each) for each in fleet]
        roots = [] if rooted is None else [_contribution(state, work, rooted)]
        ordered = in_order(contributions)
        try:
            for each in roots:
                cohort = replace(cohort, root=each.read())
            if settings.makes_weights:
                after = fold(strategy, without_residual(before), ordered, believed, cohort, state.folder)
                folded = after.require_finite()
            elif settings.kind == "statistics":
                folded = fold_statistics(before, ordered, believed.limits.inputs)
            else:
                folded = fold_evaluations(before, ordered, believed, settings)
        except FoldError as error:
            return Merged(_failed(change, error.message), lost, intact, None)
        except (_DamagedOutcomeError, DamagedVectorError):
            # What was summed holds a part of the round only: begin again without all that are damaged.
            damaged |= _damaged(work.of.run, [*contributions, *roots])
        except OSError as error:
            raise storage_error(error, "write a temporary file in", state.folder) from error
        else:
            break
    folded, difference = broadcast(work.of.settings, before, folded, work.run.version + 1)
    return Merged(change, lost, intact, folded, difference)


def _failed(change: Change, why: str) -> Change:
    return Change(replace(change.standing, state=FoldState.FAILED, why=why))


def _believed(work: Work) -> Believed:
    settings = work.of.settings
    limits = ModelLimits.from_json(work.run.limits)
    return Believed(
        settings.max_examples,
        settings.max_weight_ratio,
        limits,
        metrics_of(work.run),
        Staleness.in_run(settings, settings.schedule),
    )


def _contribution(state: ServerState, work: Work, each: Row) -> Contribution:
    run, settings, schedule = work.run, work.of.settings, work.of.schedule
    expected = Expectation(
        each.task_id,
        each.weights_hash,
        run.layout_hash,
        run.weight_size,
        run.statistic_size,
        sections=demand_for(settings).sections,
    )

    def read() -> Update:
        placed = state.placements.get(each.digest, expected)
        if placed is not None:
            return placed.begun(each.version, newest=run.version)
        try:
            data = state.outcomes.get(each.digest)
            outcome = decode_outcome(data)
            found = validate(outcome, expected)
        except (DamagedBlobError, OutcomeRefusedError) as error:
            raise _DamagedOutcomeError(each.task_id) from error
        if found is None:
            raise StorageError(f"The accepted outcome of task {each.task_id} holds no update.")
        return state.placements.note(each.digest, data, outcome, expected, found).begun(
            each.version, newest=run.version
        )

    return Contribution(
        each.task_id,
        each.num_examples,
        read,
        each.accepted if schedule.by_acceptance else 0,
        run.version - each.version,
        lambda: get_vector(state, each.weights_hash),
    )


def _damaged(run_id: str, contributions: Sequence[Contribution]) -> set[str]:
    """Reads all of them, and names the tasks of those that are damaged."""
    found = set()
    for each in contributions:
        try:
            each.read()
        except _DamagedOutcomeError as error:
            _log.error("run %s: the accepted outcome of task %s is damaged: %s", run_id, error, error.__cause__)
            found.add(each.task_id)
    return found


def _left_out(damaged: set[str], baseless: set[str], removed: set[str]) -> str:
    whys = (
        ("are damaged", damaged),
        ("go on from others that do not count", baseless),
        ("are of devices that were removed", removed),
    )
    return "; ".join(
        f"{len(tasks)} accepted outcomes {why} and left out ({_some(tasks)})" for why, tasks in whys if tasks
    )


def _some(tasks: set[str]) -> str:
    """Names at most three; the log has all that are damaged."""
    return ", ".join(sorted(tasks)[:3]) + (", …" if len(tasks) > 3 else "")
