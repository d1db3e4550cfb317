"""Runs: create, list, stop, what comes next in them."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from itertools import takewhile

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import ColumnElement, bindparam, func, insert, select, update
from sqlalchemy.exc import DatabaseError

from edgefl.errors import DataError, InvalidSettingError, RunError
from edgefl.manifest import Metric, ModelManifest
from edgefl.metrics import around_training
from edgefl.model_file import ModelFile
from edgefl.wire.messages import Correction
from edgefl.wire.words import is_hash, is_short_name
from edgefl_server.aggregation import (
    FAILED_FOLDS_IN_A_ROW,
    FoldState,
    ModelLimits,
    Next,
    Progress,
    RunSettings,
    SettingError,
    after_failure,
    settle,
    strategy_for,
)
from edgefl_server.storage.blobs import DamagedBlobError
from edgefl_server.storage.changes import open_cohort, stop_folds
from edgefl_server.storage.clock import Moment
from edgefl_server.storage.evaluations import add_evaluation, evaluate_due, evaluated_by, rest, stop_evaluation
from edgefl_server.storage.identities import check_population
from edgefl_server.storage.sessions import Session
from edgefl_server.storage.state import ServerState, get_vector, put_vector
from edgefl_server.storage.statements import Statement
from edgefl_server.storage.tables import FolderRow, RunRow, RunState, folds, runs, table, versions

__all__ = [
    "NameTakenError",
    "RunStateError",
    "add_version",
    "after_failed_fold",
    "create_run",
    "end_run",
    "find_run",
    "get_run",
    "keep_weights",
    "kept_by_devices",
    "least_served",
    "metrics_of",
    "move_on",
    "readable_runs",
    "stop_run",
]

_log = logging.getLogger(__name__)

_ADD_VERSION = Statement(insert(versions))
_START_FROM = Statement(update(runs).where(runs.c.run == bindparam("of")).values(version=bindparam("version")))
_END = Statement(
    update(runs)
    .where(runs.c.run == bindparam("of"))
    .values(state=bindparam("state"), why=bindparam("why"), ended_at=bindparam("ended_at"))
)
_folder = table(FolderRow)
_COUNT = Statement(update(_folder).values(generation=_folder.c.generation + 1))


class NameTakenError(RunError):
    """An active run has the name, or any run has it as its id."""


class RunStateError(RunError):
    """A run is not in the state in which what is wanted could be done."""


def create_run(
    state: ServerState,
    model: bytes,
    population: str,
    settings: RunSettings,
    name: str = "",
    weights: str = "",
    evaluation_data: str = "",
) -> str:
    """Starts a run from the weights in a model file, or from others of its layout.

    Args:
        state: the server's.
        model: the file's bytes.
        population: whose devices train.
        settings: without a seed, a random one is drawn and kept.
        name: for people, who may use it instead of the id. Runs that are over do not keep theirs from a new one.
        weights: the hash of the weights to begin with, which `keep_weights` gave; empty: those in the file.
        evaluation_data: the hash of data that `keep_data` kept, on which versions are evaluated; empty: none.

    Returns:
        The run's id.

    Raises:
        ModelFileError: the bytes are no intact model file.
        InvalidSettingError: every device would decline the tasks, the file cannot take part in the strategy or holds
            NaN, or a name has another form; or the weights are not there, or of another layout.
        NameTakenError: an active run has the name.
        StorageError: no space.
    """
    check_population(population)
    if name and not is_short_name(name):
        raise SettingError(f"{{name}} expects 1 to 64 letters, digits, dots, dashes and underscores, got {name!r:.80}.")
    with state.database.read() as session:  # before anything is written
        _require_free(session, name)
    file = ModelFile(model)
    file.verify()
    manifest = file.manifest
    settings = settle(settings, manifest)
    initial = _given(state, weights, manifest) if weights else file.initial_weights()
    if not np.isfinite(initial).all():
        raise InvalidSettingError(
            "The initial weights hold NaN or infinity: no device would take them.",
            hint="Convert the model again from weights that are finite, or give others.",
        )
    if settings.seed is None:
        settings = replace(settings, seed=secrets.randbelow(2**62))
    metrics, limits = manifest.metrics, ModelLimits.of(manifest)
    if settings.local_test:
        metrics, limits = around_training(metrics), limits.around_training()
    model_hash = state.models.put(model)
    first = strategy_for(settings).init(initial, manifest.layout.weight_size)
    weights_hash = put_vector(state, first.weights)
    slots = {slot: put_vector(state, vector) for slot, vector in first.slots.items()}
    now = state.now()
    run = RunRow(
        run=secrets.token_hex(4),
        name=name,
        population=population,
        state=RunState.ACTIVE,
        why="",
        settings=settings.to_json(),
        model_hash=model_hash,
        graph_hash=manifest.graph_hash,
        layout_hash=manifest.layout_hash,
        weight_size=manifest.layout.weight_size,
        statistic_size=manifest.layout.statistic_size,
        metrics=[asdict(metric) for metric in metrics],
        limits=limits.to_json(),
        version=0,
        cohort=0,
        fold=0,
        accepted=0,
        served=0,
        created_at=now.date,
        created_clock=now.clock,
        evaluation_data=evaluation_data,
    )
    with state.database.write() as session:
        _require_free(session, name)
        run.served = least_served(session, population)
        session.add(run)
        session.flush()
        add_version(session, run.run, 0, 0, weights_hash, slots, now)
        add_evaluation(session, run, settings, now)
        move_on(session, run.run, Progress(Next.COHORT), now)
    state.keep_generation()
    _log.info("run %s created: %d rounds of %d outcomes from %s", run.run, settings.rounds, settings.target, population)
    return run.run


def keep_weights(state: ServerState, data: bytes) -> str:
    """Keeps weights for runs to begin with; their hash.

    Args:
        state: the server's.
        data: little-endian float32.

    Raises:
        InvalidSettingError: it is no vector of float32.
        StorageError: no space.
    """
    if not data or len(data) % 4:
        raise InvalidSettingError(f"Weights are float32, four bytes each, got {len(data)} bytes.")
    return state.weights.put(data)


def _given(state: ServerState, digest: str, manifest: ModelManifest) -> NDArray[np.float32]:
    """The weights that a run is to begin with."""
    unknown = InvalidSettingError(
        f"There are no weights {digest:.80} on this server.", hint="Send them first: `edgefl run create --weights`."
    )
    if not is_hash(digest):
        raise unknown
    try:
        vector = get_vector(state, digest)
    except DamagedBlobError as error:
        raise unknown from error
    try:
        return manifest.layout.check(vector)
    except DataError as error:
        raise InvalidSettingError(
            f"The weights to begin with are of another layout than the model's. {error.message}", hint=error.hint
        ) from error


def _require_free(session: Session, name: str) -> None:
    if not name:
        return
    taken = session.scalar(
        select(RunRow.run).where(
            (RunRow.run == name) | ((RunRow.name == name) & RunRow.state.in_(RunState.GOING_ON))  # an id comes first
        )
    )
    if taken is not None:
        raise NameTakenError(
            f"Run {taken}, which is active, has the name {name!r}.", hint="Choose another name, or stop that run."
        )


def least_served(session: Session, population: str) -> int:
    """The share at which a run begins: what the least served one has, so that it takes over nothing of the past."""
    share = select(func.min(RunRow.served)).where(RunRow.population == population, RunRow.evaluates == "")
    return session.scalar(share.where(RunRow.state == RunState.ACTIVE)) or 0


def add_version(
    session: Session,
    run_id: str,
    number: int,
    fold: int,
    weights_hash: str,
    slots: Mapping[str, str],
    now: Moment,
    parent: int | None = None,
) -> None:
    """Makes weights the newest version of a run, from which tasks start.

    Args:
        session: that writes.
        run_id: the run.
        number: of the version.
        fold: that made it; 0: none.
        weights_hash: of the weights.
        slots: the strategy's, as hashes.
        now: the time.
        parent: the version that it came from; None: none.
    """
    came = {"parent": parent, "made_at": now.date}
    row = {"run": run_id, "number": number, "fold": fold, "weights_hash": weights_hash, "slots": dict(slots), **came}
    session.execute(_ADD_VERSION, row)
    session.execute(_START_FROM, {"of": run_id, "version": number})


def move_on(session: Session, run_id: str, progress: Progress, now: Moment) -> None:
    """Does what comes next in a run: opens its next cohort, or ends it; and evaluates what is due."""
    _count(session)
    if evaluated := evaluated_by(session, run_id):
        rest(session, run_id)
        evaluate_due(session, evaluated, now)
        return
    if progress.next is Next.COHORT:
        open_cohort(session, run_id, now)
    elif progress.next is not Next.GATHERING:
        outcome = RunState.DONE if progress.next is Next.DONE else RunState.FAILED
        # What is gathered for one more fold is not needed.
        stop_folds(session, run_id, "the run has as many rounds as it was to have", now)
        session.execute(_END, {"of": run_id, "state": outcome, "why": progress.why[:500], "ended_at": now.date})
    evaluate_due(session, run_id, now)


def after_failed_fold(session: Session, run_id: str, number: int, rounds: int, now: Moment) -> None:
    """Goes on after a fold of a run failed."""
    fold = folds.c
    # Those that a rollback ended, which is what the newest version then comes from, did not fail.
    newest = select(RunRow.version).where(RunRow.run == run_id).scalar_subquery()
    since = select(versions.c.fold).where(versions.c.run == run_id, versions.c.number == newest).scalar_subquery()
    latest = session.execute(
        select(fold.state, fold.why)
        .where(fold.run == run_id, fold.number <= number, fold.number > since)
        .order_by(fold.number.desc())
        .limit(FAILED_FOLDS_IN_A_ROW)
    ).all()
    why = latest[0].why
    _log.warning("run %s: round %d failed: %s", run_id, number, why)
    failed = len(list(takewhile(lambda each: each.state == FoldState.FAILED.value, latest)))
    done = select(fold.number).where(fold.run == run_id, fold.state == FoldState.DONE.value).limit(1)
    any_done = session.scalar(done) is not None
    gathering = session.scalar(select(RunRow.fold).where(RunRow.run == run_id)) != number
    progress = after_failure(number, why, rounds, failed_in_a_row=failed, any_done=any_done, gathering=gathering)
    move_on(session, run_id, progress, now)


def stop_run(state: ServerState, run_id: str, why: str = "stopped by the operator") -> bool:
    """Ends a run now; what its open round has accepted is discarded.

    Returns:
        False when the run had ended before.

    Raises:
        RunError: there is no such run.
    """
    with state.database.write() as session:
        found = find_run(session, run_id)
        ended = end_run(session, found, RunState.STOPPED, why, state.now())
    if ended:
        state.keep_generation()
        state.troubles.drop(found)
    return ended


def end_run(session: Session, run_id: str, outcome: str, why: str, now: Moment) -> bool:
    """Ends an active run, also one whose settings or open round cannot be read any more.

    Args:
        session: that writes.
        run_id: its id.
        outcome: STOPPED or FAILED.
        why: for operators.
        now: the time.

    Returns:
        False when the run and its evaluation had ended before.
    """
    why = why[:500]
    evaluation = stop_evaluation(session, run_id, why, now)  # that of the last version may go on after the run
    if session.scalar(select(RunRow.state).where(RunRow.run == run_id)) not in RunState.GOING_ON:
        return evaluation
    _count(session)
    stop_folds(session, run_id, why, now)
    session.execute(_END, {"of": run_id, "state": outcome, "why": why, "ended_at": now.date})
    return True


def _count(session: Session) -> None:
    """Counts a step that nobody may undo; `ServerState.keep_generation` follows once it is committed."""
    session.execute(_COUNT)


def find_run(session: Session, run_id: str) -> str:
    """The id of a run that is given by its id, or by its name: the active one's, else that of the only one that had it.

    Raises:
        RunError: there is none, or several had the name.
    """
    if session.scalar(select(RunRow.run).where(RunRow.run == run_id)) is not None:
        return run_id
    named = session.execute(select(RunRow.run, RunRow.state).where(RunRow.name == run_id)).all()
    chosen = [run for run, state in named if state in RunState.GOING_ON] or [run for run, _ in named]
    if len(chosen) > 1:
        ids = ", ".join(chosen)
        raise RunError(f"{len(chosen)} runs are named {run_id!r}.", hint=f"Use one of the ids {ids}.")
    if not chosen:
        raise RunError(f"There is no run {run_id!r:.80}.", hint="`edgefl run list` names all runs.")
    return str(chosen[0])


def get_run(session: Session, run_id: str) -> RunRow:
    """The run that `find_run` finds."""
    return session.get_one(RunRow, find_run(session, run_id))


def kept_by_devices(state: ServerState, run: RunRow) -> str:
    """Names what devices keep of a run as long as it is active; empty: nothing."""
    if strategy_for(RunSettings.from_json(run.settings)).demand.correction is not Correction.NONE:
        return "their corrections"
    manifest = ModelFile(state.models.get(run.model_hash)).manifest
    return "the parameters that are their own" if manifest.local_parameters else ""


def readable_runs(
    state: ServerState, session: Session, *conditions: ColumnElement[bool]
) -> Iterator[tuple[str, RunRow | None]]:
    """Runs in the order in which they were created; None for one whose row cannot be read, which is noted."""
    order = RunRow.created_clock, RunRow.run
    try:
        rows = {row.run: row for row in session.scalars(select(RunRow).where(*conditions).order_by(*order))}
        ids: Iterable[str] = rows
    except DatabaseError:
        raise
    except Exception:  # one of them spoils the query: each by itself
        rows, ids = {}, session.scalars(select(RunRow.run).where(*conditions).order_by(*order)).all()
    for run_id in ids:
        try:
            row = rows.get(run_id) or session.get_one(RunRow, run_id)
        except DatabaseError:
            raise
        except Exception as error:
            state.troubles.note(run_id, "read the run", error, state.clock())
            yield run_id, None
        else:
            state.troubles.clear(run_id, "read the run")
            yield run_id, row


def metrics_of(run: RunRow) -> tuple[Metric, ...]:
    """The metrics of a run's model."""
    return tuple(
        Metric(
            each["name"],
            each["finaliser"],
            tuple(each["states"]),
            each.get("settings", {}),
            each.get("direction", ""),
        )
        for each in run.metrics
    )
