"""More rounds for a run, also for one that is over."""

from __future__ import annotations

import logging
from dataclasses import replace

from sqlalchemy import bindparam, select, update

from edgefl.errors import InvalidSettingError
from edgefl_server.aggregation import Next, Progress, RunSettings
from edgefl_server.storage.evaluations import wake
from edgefl_server.storage.runs import NameTakenError, get_run, kept_by_devices, least_served, move_on
from edgefl_server.storage.sessions import Session
from edgefl_server.storage.state import ServerState
from edgefl_server.storage.statements import Statement
from edgefl_server.storage.tables import RunRow, RunState, runs

__all__ = ["continue_run"]

_log = logging.getLogger(__name__)
_SET = Statement(update(runs).where(runs.c.run == bindparam("of")).values(settings=bindparam("settings")))
_RESUME = Statement(
    update(runs)
    .where(runs.c.run == bindparam("of"))
    .values(state=RunState.ACTIVE, why="", ended_at=None, served=bindparam("served"))
)


def continue_run(state: ServerState, run_id: str, rounds: int) -> str:
    """Gives a run so many rounds more; one that is over goes on from its newest weights.

    Args:
        state: the server's.
        run_id: its id or name.
        rounds: beyond those that it was to have; of a run that ended earlier, beyond those that it had.

    Returns:
        The run's id.

    Raises:
        RunError: there is no such run.
        SettingError: there would be too many rounds, or fewer than one more.
        InvalidSettingError: the run is over, and its devices have forgotten what they would need to go on with it.
        NameTakenError: the run is over, and another one that is active has its name.
    """
    with state.database.read() as session:
        run = get_run(session, run_id)
        keeps = kept_by_devices(state, run)
    with state.database.write() as session:
        run = get_run(session, run.run)
        over, found = run.state not in RunState.GOING_ON, run.run
        if over:
            if keeps:
                raise InvalidSettingError(
                    f"Run {found} is over, and its devices have forgotten {keeps}, without which they cannot go on.",
                    hint="Give a run of this kind more rounds before it ends, or create a new one.",
                )
            _require_own_name(session, run.name)
        settings = RunSettings.from_json(run.settings)
        # Tasks that start from the newest version may be under way, those of a run that is over are not.
        earlier = settings.noting(settings.rounds, run.version + int(not over))
        more = _more(run.fold if over else settings.rounds, rounds)
        settings = replace(settings, rounds=more, earlier_rounds=earlier)
        settings.check_last_rate(settings.rounds)
        session.execute(_SET, {"of": found, "settings": {**run.settings, **settings.to_json()}})
        if over:
            served = max(run.served, least_served(session, run.population))
            session.execute(_RESUME, {"of": found, "served": served})
            wake(session, found)
            move_on(session, found, Progress(Next.COHORT), state.now())
    state.keep_generation()
    _log.info("run %s goes on: %d rounds in all", found, settings.rounds)
    return found


def _more(had: int, rounds: int) -> int:
    return had + rounds if rounds > 0 else rounds  # which the settings refuse


def _require_own_name(session: Session, name: str) -> None:
    active = session.scalar(select(RunRow.run).where(RunRow.name == name, RunRow.state.in_(RunState.GOING_ON)))
    if name and active is not None:
        raise NameTakenError(
            f"Run {active}, which is active, has the name {name!r} meanwhile.", hint="Stop that one first."
        )
