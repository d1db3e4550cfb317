"""Creating a run: from a model file, or from weights of its layout that an operator sent."""

from __future__ import annotations

import logging
import secrets
from dataclasses import asdict, replace

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select

from edgefl.errors import DataError, InvalidSettingError
from edgefl.manifest import ModelManifest
from edgefl.metrics import around_training
from edgefl.model_file import ModelFile
from edgefl.wire.words import is_hash, is_short_name
from edgefl_server.aggregation import (
    ModelLimits,
    Next,
    Progress,
    RunSettings,
    SettingError,
    root_device_of,
    settle,
    strategy_for,
)
from edgefl_server.storage.blobs import DamagedBlobError
from edgefl_server.storage.evaluations import add_evaluation
from edgefl_server.storage.invitations import check_population
from edgefl_server.storage.runs import NameTakenError, add_version, least_served, move_on
from edgefl_server.storage.sessions import Session
from edgefl_server.storage.state import ServerState, get_vector, put_vector
from edgefl_server.storage.tables import DeviceRow, RunRow, RunState

__all__ = ["create_run", "keep_weights"]

_log = logging.getLogger(__name__)


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
            NaN, or a name has another form; the weights are not there, or of another layout; or the root device is no
            device of the population.
        NameTakenError: an active run has the name.
        StorageError: no space.
    """
    check_population(population)
    if name and not is_short_name(name):
        raise SettingError(f"{{name}} expects 1 to 64 letters, digits, dots, dashes and underscores, got {name!r:.80}.")
    if evaluation_data and settings.kind == "statistics":
        raise SettingError(
            "{evaluate_on} has no meaning with {kind} statistics: no weights are looked at.", hint="Leave it out."
        )
    with state.database.read() as session:  # before anything is written
        _require_free(session, name)
        _require_enrolled(session, root_device_of(settings), population)
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


def _require_enrolled(session: Session, root_device: str, population: str) -> None:
    """Makes sure that a run's root device, where it has one, is a device of its population."""
    known = session.get(DeviceRow, root_device) if root_device else None
    if root_device and (known is None or known.removed_at is not None or known.population != population):
        raise SettingError(
            f"{{root_device}} expects the id of a device that is enrolled in {population}, got {root_device!r:.80}.",
            hint="Start it first: `edgefl device run`; `edgefl device status --state DIR` says its id.",
        )


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
