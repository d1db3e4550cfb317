"""The log of a run: all that its weights follow from, beside what devices do; `aggregation.replay` reads it."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select

from edgefl.errors import RunError
from edgefl_server.aggregation import FoldState
from edgefl_server.storage.runs import get_run
from edgefl_server.storage.state import ServerState
from edgefl_server.storage.tables import AssignmentRow, Disposition, FoldRow, OutcomeRow, VersionRow

__all__ = ["run_log"]

_FIELDS = ("task_id", "device", "cohort", "version", "attempt", "turn", "continues", "accepted")
_FOLDS = (
    select(FoldRow.number, FoldRow.version, VersionRow.number, FoldRow.enrolled, VersionRow.weights_hash)
    .add_columns(FoldRow.diagnostics)
    .join(VersionRow, (VersionRow.run == FoldRow.run) & (VersionRow.fold == FoldRow.number))
    .where(FoldRow.state == FoldState.DONE.value)
    .order_by(VersionRow.number)
)
_UPDATES = (
    select(
        OutcomeRow.fold,
        OutcomeRow.task_id,
        OutcomeRow.device,
        AssignmentRow.cohort,
        AssignmentRow.version,
        AssignmentRow.attempt,
        AssignmentRow.turn,
        AssignmentRow.continues,
        OutcomeRow.accepted,
    )
    .join(AssignmentRow, AssignmentRow.task_id == OutcomeRow.task_id)
    .where(OutcomeRow.disposition == Disposition.FOLDED)
    .order_by(OutcomeRow.accepted)
)


def run_log(state: ServerState, run_id: str) -> dict[str, Any]:
    """All that a run's weights follow from, as plain values: `RunLog.from_json` reads it.

    Raises:
        RunError: there is no such run, or rows of it are pruned already.
    """
    with state.database.read() as session:
        run = get_run(session, run_id)
        made = session.execute(_FOLDS.where(FoldRow.run == run.run)).all()
        copied = VersionRow.number.not_in([0, *(makes for _, _, makes, *_ in made)])
        copies = select(VersionRow.number, VersionRow.parent).where(VersionRow.run == run.run, copied)
        rollbacks = {str(number): parent for number, parent in session.execute(copies)}
        merged: dict[int, list[dict[str, Any]]] = {}
        for number, *values in session.execute(_UPDATES.where(OutcomeRow.run == run.run)):
            merged.setdefault(number, []).append(dict(zip(_FIELDS, values, strict=True)))
    entries, rooted = [], bool(run.settings.get("root_device"))
    for number, version, makes, enrolled, weights_hash, diagnostics in made:
        # That of the root device is none of those that were merged, and they are merged by it.
        updates, all_of_them = merged.get(number, []), int(diagnostics["outcomes"]) + rooted
        if len(updates) != all_of_them:
            raise RunError(
                f"The log of run {run.run} is not whole any more: of round {number} only {len(updates)} of "
                f"{all_of_them} updates are known.",
                hint="Rows of rounds that ended long ago are pruned: start the server with a larger --keep-days.",
            )
        entries.append(
            {
                "number": number,
                "version": version,
                "makes": makes,
                "enrolled": enrolled,
                "weights_hash": weights_hash,
                "updates": updates,
            }
        )
    return {
        "run": run.run,
        "population": run.population,
        "settings": run.settings,
        "model_hash": run.model_hash,
        "model_bytes": state.models.size(run.model_hash),
        "graph_hash": run.graph_hash,
        "layout_hash": run.layout_hash,
        "folds": entries,
        "rollbacks": rollbacks,
    }
