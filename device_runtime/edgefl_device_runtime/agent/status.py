"""Reads what `edgefl device status` says from the state folder, beside a device that runs or without one."""

from __future__ import annotations

import contextlib
import time
from typing import Any

from edgefl.errors import FormatVersionError, MessageError
from edgefl_device_runtime.agent.journal import read_journal
from edgefl_device_runtime.agent.replies import plain
from edgefl_device_runtime.agent.state import StateFolder
from edgefl_device_runtime.agent.summary import amount, work_name

__all__ = ["status_of", "status_text"]


def status_of(folder: StateFolder) -> dict[str, Any]:
    """The state of a device as plain values; changes and claims nothing.

    Raises:
        StorageError: a file is there and cannot be read.
    """
    enrolment, journal, unsent = folder.enrolment(), read_journal(folder.status), None
    with contextlib.suppress(FormatVersionError, MessageError):  # the device drops it when it starts, and says so
        unsent = folder.unsent_outcome()
    running, history = folder.used(), journal.get("history")
    doing, trouble = journal.get("doing") or "starting", journal.get("trouble") or None
    if trouble and doing == "waiting for work":
        doing = "asking for work"
    return {
        "device_id": folder.identity().device_id,
        "server": enrolment.get("server"),
        "population": enrolment.get("population"),
        "running": running,
        "doing": doing if running else None,
        "share": journal.get("share") if running else None,
        "task": journal.get("task") if running else None,
        "last_contact": journal.get("last_contact"),
        "next_try": journal.get("next_try") if running else None,
        "trouble": trouble if running else None,
        "last_error": journal.get("last_error"),
        "as_of": journal.get("written"),
        "unsent_task": unsent[0].task_id if unsent else None,
        "cache_bytes": sum(map(_size, [*folder.models.glob("*"), *folder.weights.glob("*")])),
        "history": history if isinstance(history, list) else [],
    }


def status_text(status: dict[str, Any]) -> str:
    """The same for people."""
    lines = [f"device_id: {status['device_id']}"]
    if status["server"] is None:
        lines.append("server: not enrolled yet")
    else:
        lines += [f"{name}: {status[name]}" for name in ("server", "population")]
    if status["running"]:
        share = f", {100 * status['share']:.0f} %" if isinstance(status["share"], float) else ""
        away = ", server not reached" if status["trouble"] else ""
        lines.append(f"running: yes, {status['doing']}{share}{away}{_ago(status['as_of'], ' (as of {})')}")
    else:
        lines.append("running: no")
    task = status["task"]
    if isinstance(task, dict):
        step = f", step {task['step']} of about {task.get('steps')}" if "step" in task else ""
        loss = f", loss {task['loss']:#.4g}" if isinstance(task.get("loss"), float) else ""
        lines.append(f"task: {_work(task, task.get('round'))} of {task.get('run')}{step}{loss}")
    lines.append(f"last contact: {_ago(status['last_contact'], '{}') or 'none'}")
    if status["trouble"]:
        lines.append(f"trouble: {status['trouble']}")
    if next_try := _ago(status["next_try"], "next try: {}", "%H:%M:%S"):
        lines.append(next_try)
    error = status["last_error"]
    if isinstance(error, dict):
        lines.append(f"last error: {_ago(error.get('at'), '{}: ')}{error.get('text')}")
    lines.append(f"unsent task: {status['unsent_task'] or 'none'}")
    lines.append(f"cache: {status['cache_bytes'] / 1e6:.1f} MB")
    for entry in status["history"]:
        with contextlib.suppress(
            KeyError, TypeError, ValueError, OverflowError
        ):  # written by another version: one line less
            loss = "" if entry["loss"] is None else f"loss {entry['loss']:#.4g}, "
            lines.append(
                f"  {_ago(entry['at'], '{}')}  {_work(entry, entry['round'])} of {entry['run'] or entry['task_id']}: "
                f"{entry['status']}, {entry['result']}; {loss}{amount(entry['examples'], 'example')}, "
                f"{amount(entry['steps'], 'step')}, {entry['seconds']:.2f} s"
            )
    return "\n".join(plain(line, 1000) for line in lines)


def _work(noted: dict[str, Any], round: Any) -> str:
    """Names a task; an edgefl that noted no kind did not say more than the round."""
    return work_name(str(noted.get("kind", "train")), round, noted.get("version", 0))


def _size(file: Any) -> int:
    with contextlib.suppress(OSError):  # a device that runs may have removed it
        return int(file.stat().st_size)
    return 0


def _ago(moment: Any, form: str, how: str = "%Y-%m-%d %H:%M:%S") -> str:
    if not isinstance(moment, (int, float)):
        return ""
    with contextlib.suppress(ValueError, OverflowError, OSError):  # a moment that no calendar has
        return form.format(time.strftime(how, time.localtime(moment)))
    return ""
