"""What the server keeps: rows in a database, models, weights and outcomes in files."""

from edgefl_server.storage.folding import close_due_rounds, fold_pending, sweep_outcomes
from edgefl_server.storage.identities import EnrolmentRefusedError, authenticate, enrol, invite
from edgefl_server.storage.outcomes import (
    NotWantedError,
    accept_outcome,
    accept_upload,
    largest_outcome,
    received_bytes,
    sweep_uploads,
    was_accepted,
)
from edgefl_server.storage.runs import create_run, stop_run
from edgefl_server.storage.state import ServerState
from edgefl_server.storage.status import run_status, runs_summary, weights_of_round
from edgefl_server.storage.tables import DeviceRow
from edgefl_server.storage.tasks import (
    active_runs,
    devices_with_tasks,
    ended_runs,
    may_fetch,
    next_task,
    places,
    renew_lease,
)
from edgefl_server.storage.uploads import Upload

__all__ = [
    "DeviceRow",
    "EnrolmentRefusedError",
    "NotWantedError",
    "ServerState",
    "Upload",
    "accept_outcome",
    "accept_upload",
    "active_runs",
    "authenticate",
    "close_due_rounds",
    "create_run",
    "devices_with_tasks",
    "ended_runs",
    "enrol",
    "fold_pending",
    "invite",
    "largest_outcome",
    "may_fetch",
    "next_task",
    "places",
    "received_bytes",
    "renew_lease",
    "run_status",
    "runs_summary",
    "stop_run",
    "sweep_outcomes",
    "sweep_uploads",
    "was_accepted",
    "weights_of_round",
]
