"""Following a run from a terminal."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from edgefl.errors import RunError, ServerUnavailableError
from edgefl_server import run_text
from edgefl_server.operator_client import OperatorClient, run_path

__all__ = ["require_success", "watch"]

_PAUSE_SECONDS = 1.0
_PATIENCE_SECONDS = 60.0
"""A server that is restarted is waited for so long."""


def watch(
    client: OperatorClient, run_id: str, report: Callable[[str], None], sleep: Callable[[float], None] = time.sleep
) -> dict[str, Any]:
    """Tells which run it is, what it waits for, each round and evaluation as it ends, and each trouble once.

    It goes on until the run has ended, and the evaluation of its last version with it.

    Returns:
        The last status.

    Raises:
        ServerUnavailableError: the server did not answer for a minute.
    """
    told, evaluated, central, silent = 0, 0, 0, 0.0
    troubles: list[str] = []
    greeted, ending, lacking = False, False, ""
    while True:
        try:
            result = client.get(run_path(run_id))
        except ServerUnavailableError as error:
            if silent == 0:
                report(f"{error.message} Trying again for a minute.")
            silent += _PAUSE_SECONDS
            if silent > _PATIENCE_SECONDS:
                raise
            sleep(_PAUSE_SECONDS)
            continue
        silent = 0.0
        if not greeted:
            report(run_text.headline(result))
            greeted = True
        if (line := run_text.waiting(result)) != lacking:
            if line:
                report(line)
            lacking = line
        for entry in result["history"][told:]:
            if entry["state"] not in ("done", "failed"):
                break
            report(run_text.round_line(entry))
            told += 1
        for entry in result.get("evaluations", ())[evaluated:]:
            if entry["state"] not in run_text.ENDED:
                break
            report(run_text.evaluation_line(entry))
            evaluated += 1
        for entry in result.get("central", ())[central:]:
            report(run_text.central_line(entry))
            central += 1
        for line in run_text.troubles(result):
            if line not in troubles:
                report(line)
        troubles = run_text.troubles(result)
        if result["state"] not in ("active", "paused"):
            if not (result.get("evaluating") or result.get("central_pending")):
                return result
            if not ending:
                report(f"run {result['run']} is {result['state']}; its last version is still evaluated")
                ending = True
        sleep(_PAUSE_SECONDS)


def require_success(result: dict[str, Any]) -> None:
    """Passes when the run is done.

    Raises:
        RunError: it failed or was stopped.
    """
    if result["state"] != "done":
        raise RunError(f"Run {result['run']} {result['state']}: {result['why']}.")
