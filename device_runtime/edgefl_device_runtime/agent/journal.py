"""What a device is doing, in a small file for its owner (`edgefl device status`); written seldom, for memory cards."""

from __future__ import annotations

import contextlib
import json
import math
import os
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any

from edgefl.atomic import write_text
from edgefl.errors import StorageError
from edgefl.version import __version__
from edgefl.wire.messages import Task
from edgefl_device_runtime.agent.connection import Contact
from edgefl_device_runtime.agent.settings import Settings
from edgefl_device_runtime.agent.summary import TaskReport

__all__ = ["Journal", "read_journal"]


class Journal:
    """Keeps a file near what the device does.

    A thread writes it, at most once in the settings' ``status_pause``: a change that is not written at once is written
    soon, also when the device then waits for a long time. Nothing depends on the file, so a full disk is no trouble.

    Args:
        path: of the file.
        contact: with the server.
        settings: how often, and how many tasks.
    """

    def __init__(self, path: Path, contact: Contact, settings: Settings) -> None:
        self._path = path
        self._contact = contact
        self._settings = settings
        self._started = time.time()
        self._doing = "starting"
        self._task: dict[str, Any] | None = None
        self._error: dict[str, Any] | None = None
        earlier = read_journal(path).get("history")
        known = [entry for entry in earlier if isinstance(entry, dict)] if isinstance(earlier, list) else []
        self._history: deque[dict[str, Any]] = deque(known, settings.history_kept)
        self._changed = threading.Event()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        contact.changed = self._change

    def doing(self, what: str, task: Task | None = None) -> None:
        """What the device does from now on, and for which task."""
        if task is not None:
            self._task = {"task_id": task.task_id, "run": task.run, "round": task.round}
        self._doing = what
        self._change()

    def step(self, number: int, expected: int, loss: float | None) -> None:
        """How far the training is."""
        if self._task is not None:
            self._task = {**self._task, "step": number, "steps": expected, "loss": _finite(loss)}
        self._change()

    def finished(self, report: TaskReport) -> None:
        """A task is over."""
        self._task = None
        self._history.append(
            {
                "at": round(time.time()),
                "task_id": report.task_id,
                "run": report.run,
                "round": report.round,
                "status": report.status,
                "result": report.result,
                "loss": _finite(report.loss),
                "examples": report.examples,
                "steps": report.steps,
                "seconds": round(report.seconds, 3),
            }
        )
        self._change()

    def error(self, text: str) -> None:
        """What went wrong."""
        self._error = {"at": round(time.time()), "text": text}
        self._change()

    def close(self, doing: str) -> None:
        """Writes a last time."""
        self._ended.set()
        self._changed.set()
        if self._thread is not None:
            self._thread.join()
            self._doing = doing
            self._write()

    def _change(self) -> None:
        if not self._changed.is_set() and not self._ended.is_set():
            self._changed.set()
            if self._thread is None:
                self._thread = threading.Thread(target=self._keep_writing, name="journal", daemon=True)
                self._thread.start()

    def _keep_writing(self) -> None:
        while not self._ended.is_set():
            self._changed.wait()
            self._changed.clear()
            if not self._ended.is_set():
                self._write()
            self._ended.wait(self._settings.status_pause)

    def _write(self) -> None:
        contact = self._contact
        document = {
            "edgefl": __version__,
            "pid": os.getpid(),
            "started": round(self._started),
            "written": round(time.time()),
            "doing": self._doing,
            "task": self._task,
            "last_contact": None if contact.last is None else round(contact.last),
            "next_try": None if contact.next_try is None else round(contact.next_try),
            "trouble": contact.trouble,
            "last_error": self._error,
            "history": list(self._history),
        }
        with contextlib.suppress(StorageError, ValueError):
            write_text(self._path, json.dumps(document), mode=0o600)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def read_journal(path: Path) -> dict[str, Any]:
    """What a journal says; empty when there is none, or it is damaged."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}
