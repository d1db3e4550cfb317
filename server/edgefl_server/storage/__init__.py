"""Keeps what the server has: rows in a database, models, weights and outcomes in files."""

from edgefl_server.storage.audit import MOST_ENTRIES, Refusals, audit_entries, note_act
from edgefl_server.storage.backups import Checked, back_up, check, restore
from edgefl_server.storage.barring import BLOCKED, REMOVED, Quota
from edgefl_server.storage.central import CentralWork, keep_central, keep_data, next_central, require_data
from edgefl_server.storage.continuing import continue_run
from edgefl_server.storage.creating import create_run, keep_weights
from edgefl_server.storage.damage import fail_damaged_runs
from edgefl_server.storage.figures import Figures, OpenRun, bytes_on_disk, free_bytes, server_figures
from edgefl_server.storage.fleet import (
    MOST_LISTED,
    UnknownDeviceError,
    block_device,
    get_device,
    limit_device,
    list_devices,
    remove_device,
    tag_device,
    unblock_device,
)
from edgefl_server.storage.folding import close_due_rounds, fold_pending, fold_round, pending_folds, settle_folds
from edgefl_server.storage.found_tasks import UnknownTaskError
from edgefl_server.storage.glances import glance
from edgefl_server.storage.identities import (
    authenticate,
    enrol,
    has_form_of_credentials,
    populations,
    require_invited,
    tell_capabilities,
    tell_of_double,
    tell_public_key,
    unknown_device,
)
from edgefl_server.storage.invitations import (
    EnrolmentRefusedError,
    check_invitation,
    has_form_of_invitation,
    invite,
    list_invitations,
    revoke_invitation,
    wrong_token,
)
from edgefl_server.storage.lineage import diff_versions, roll_back, run_history
from edgefl_server.storage.logs import run_log
from edgefl_server.storage.operators import (
    OperatorRefusedError,
    add_operator,
    has_form_of_key,
    list_operators,
    operator_named,
    operator_with_key,
    revoke_operator,
)
from edgefl_server.storage.outcomes import (
    Accepted,
    Looked,
    NotWantedError,
    accept_outcome,
    accept_upload,
    look_at_outcome,
    received_bytes,
    sweep_uploads,
)
from edgefl_server.storage.pausing import pause_run, resume_run
from edgefl_server.storage.runs import NameTakenError, RunStateError, stop_run
from edgefl_server.storage.state import DEFAULT_KEEP_DAYS, ServerState
from edgefl_server.storage.status import run_status, runs_summary, warnings, weights_of_round
from edgefl_server.storage.tables import DeviceRow
from edgefl_server.storage.tasks import (
    Found,
    devices_with_tasks,
    ended_runs,
    fetching_run,
    look_for_tasks,
    next_task,
    renew_lease,
    work_for,
)
from edgefl_server.storage.tidying import Swept, prune_rows, sweep_outcomes
from edgefl_server.storage.troubles import explained
from edgefl_server.storage.uploads import Upload

__all__ = [
    "BLOCKED",
    "DEFAULT_KEEP_DAYS",
    "MOST_ENTRIES",
    "MOST_LISTED",
    "REMOVED",
    "Accepted",
    "CentralWork",
    "Checked",
    "DeviceRow",
    "EnrolmentRefusedError",
    "Figures",
    "Found",
    "Looked",
    "NameTakenError",
    "NotWantedError",
    "OpenRun",
    "OperatorRefusedError",
    "Quota",
    "Refusals",
    "RunStateError",
    "ServerState",
    "Swept",
    "UnknownDeviceError",
    "UnknownTaskError",
    "Upload",
    "accept_outcome",
    "accept_upload",
    "add_operator",
    "audit_entries",
    "authenticate",
    "back_up",
    "block_device",
    "bytes_on_disk",
    "check",
    "check_invitation",
    "close_due_rounds",
    "continue_run",
    "create_run",
    "devices_with_tasks",
    "diff_versions",
    "ended_runs",
    "enrol",
    "explained",
    "fail_damaged_runs",
    "fetching_run",
    "fold_pending",
    "fold_round",
    "free_bytes",
    "get_device",
    "glance",
    "has_form_of_credentials",
    "has_form_of_invitation",
    "has_form_of_key",
    "invite",
    "keep_central",
    "keep_data",
    "keep_weights",
    "limit_device",
    "list_devices",
    "list_invitations",
    "list_operators",
    "look_at_outcome",
    "look_for_tasks",
    "next_central",
    "next_task",
    "note_act",
    "operator_named",
    "operator_with_key",
    "pause_run",
    "pending_folds",
    "populations",
    "prune_rows",
    "received_bytes",
    "remove_device",
    "renew_lease",
    "require_data",
    "require_invited",
    "restore",
    "resume_run",
    "revoke_invitation",
    "revoke_operator",
    "roll_back",
    "run_history",
    "run_log",
    "run_status",
    "runs_summary",
    "server_figures",
    "settle_folds",
    "stop_run",
    "sweep_outcomes",
    "sweep_uploads",
    "tag_device",
    "tell_capabilities",
    "tell_of_double",
    "tell_public_key",
    "unblock_device",
    "unknown_device",
    "warnings",
    "weights_of_round",
    "work_for",
    "wrong_token",
]
