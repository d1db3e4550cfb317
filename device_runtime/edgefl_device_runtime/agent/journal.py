"""Writes what a device is doing into a small file for its owner (`edgefl device status`): seldom, for memory cards."""

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

from edgefl.atomic import read_bytes, write_text
from edgefl.errors import StorageError
from edgefl.version import __version__
from edgefl.wire.messages import Task
from edgefl_device_runtime.agent.connection import Contact
from edgefl_device_runtime.agent.settings import Settings
from edgefl_device_runtime.agent.summary import TaskReport, kind_of

__all__ = ["Budget", "Journal", "read_journal"]


class Budget:
    """Bounds how often something is done: in the mean once in a pause, and a few times at once after a longer rest.

    Args:
        burst: how many times at once.
        pause: seconds.
    """

    def __init__(self, burst: int, pause: float) -> None:
        self._burst, self._pause = burst, pause
        self._left, self._last = float(burst), -math.inf

    def wait(self, now: float, urgent: bool) -> float:
        """Seconds until it may be done again; what is not urgent comes no sooner than a pause after the last time."""
        since = now - self._last
        missing = max(0.0, 1 - self._left_after(since)) * self._pause
        return missing if urgent else max(missing, self._pause - since)

    def spend(self, now: float) -> None:
        """It is done."""
        self._left, self._last = self._left_after(now - self._last) - 1, now

    def _left_after(self, since: float) -> float:
        return min(self._burst, self._left + since / self._pause) if self._pause > 0 else self._burst


class Journal:
    """Keeps a file near what the device does.

    A thread writes it. Something else that is being done, a task that is over and an error are written at once, unless
    that comes more often than the settings allow. How far something is, and what came too often, is written soon, also
    when the device then waits for a long time. Nothing depends on the file, so a full disk is no trouble.

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
        self._share: float | None = None
        self._task: dict[str, Any] | None = None
        self._error: dict[str, Any] | None = None
        earlier = read_journal(path).get("history")
        known = [entry for entry in earlier if isinstance(entry, dict)] if isinstance(earlier, list) else []
        self._history: deque[dict[str, Any]] = deque(known, settings.history_kept)
        self._state = threading.Condition()
        self._changed = self._urgent = self._ended = False
        self._trouble = ""
        self._thread: threading.Thread | None = None
        contact.changed = self._contact_changed
        self._change(urgent=True)  # what an earlier process did is over

    def doing(self, what: str, task: Task | None = None) -> None:
        """Notes what the device does from now on, and for which task."""
        if task is not None:
            self._task = {
                "task_id": task.task_id,
                "run": task.run,
                "round": task.cohort,
                "kind": kind_of(task),
                "version": task.version,
            }
        self._doing, self._share = what, None
        self._change(urgent=True)

    def step(self, number: int, expected: int, loss: float | None) -> None:
        """Notes how far the training is."""
        if self._task is not None:
            self._task = {**self._task, "step": number, "steps": expected, "loss": _finite(loss)}
        self._change()

    def sent(self, share: float) -> None:
        """Notes how much of what came out is sent, of 1."""
        self._share = share
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
                "kind": report.kind,
                "version": report.version,
                "status": report.status,
                "result": report.result,
                "loss": _finite(report.loss),
                "examples": report.examples,
                "steps": report.steps,
                "seconds": round(report.seconds, 3),
            }
        )
        self._change(urgent=True)

    def error(self, text: str) -> None:
        """Notes what went wrong."""
        self._error = {"at": round(time.time()), "text": text}
        self._change(urgent=True)

    def close(self, doing: str) -> None:
        """Writes a last time."""
        with self._state:
            self._ended = True
            self._state.notify()
        if self._thread is not None:
            self._thread.join()
            self._doing = doing
            self._write()

    def _contact_changed(self) -> None:
        begun_or_over = bool(self._contact.trouble) != bool(self._trouble)
        self._trouble = self._contact.trouble
        self._change(urgent=begun_or_over)

    def _change(self, urgent: bool = False) -> None:
        if self._ended or (self._changed and self._urgent >= urgent):
            return  # without the lock: this is called after every step
        with self._state:
            self._changed, self._urgent = True, self._urgent or urgent
            self._state.notify()
            if self._thread is None:
                self._thread = threading.Thread(target=self._keep_writing, name="journal", daemon=True)
                self._thread.start()

    def _keep_writing(self) -> None:
        budget = Budget(self._settings.status_burst, self._settings.status_pause)
        while True:
            with self._state:
                while not self._ended and (wait := self._wait(budget)) != 0:
                    self._state.wait(wait)
                if self._ended:
                    return
                self._changed = self._urgent = False
            budget.spend(time.monotonic())
            self._write()

    def _wait(self, budget: Budget) -> float | None:
        """Seconds until it is to be written; None: not before something changes."""
        if not self._changed:
            return None
        return budget.wait(time.monotonic(), self._urgent)

    def _write(self) -> None:
        contact = self._contact
        document = {
            "edgefl": __version__,
            "pid": os.getpid(),
            "started": round(self._started),
            "written": round(time.time()),
            "doing": self._doing,
            "share": self._share,
            "task": self._task,
            "last_contact": None if contact.last is None else round(contact.last),
            "next_try": None if contact.next_try is None else round(contact.next_try),
            "trouble": contact.trouble,
            "last_error": self._error,
            "history": list(self._history),
        }
        with contextlib.suppress(StorageError, ValueError):  # nothing depends on the file, nor waits for it
            write_text(self._path, json.dumps(document), mode=0o600)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def read_journal(path: Path) -> dict[str, Any]:
    """Reads what a journal says; empty when there is none, or it is damaged."""
    try:
        document = json.loads(read_bytes(path).decode())
    except (OSError, ValueError, RecursionError):
        return {}  # only its owner misses it, until the device writes it again
    return document if isinstance(document, dict) else {}
