"""Troubles: what does not work right now is logged once, tried again ever more slowly, and told to operators."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass

from edgefl.errors import EdgeflError

__all__ = ["STORE", "Troubles", "explained"]

STORE = "store or read"
"""The name of what the server cannot do for whoever asks, and when it starts."""

_log = logging.getLogger(__name__)
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 5.0, 60.0
_TOLD_AGAIN_AFTER_SECONDS = 10.0
"""On a full disk every device's call fails at another path: what is told must not need the space that is left."""
_FORGOTTEN_AFTER_SECONDS = 600.0
_LONGEST_MESSAGE = 400


@dataclass(frozen=True)
class _Trouble:
    message: str
    pause: float
    noted_at: float
    told: str
    told_at: float


class Troubles:
    """Troubles by whose they are (a run's id; empty: the server's) and what could not be done."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], _Trouble] = {}
        self._lock = threading.Lock()

    def note(self, whose: str, action: str, error: Exception, now: float) -> str:
        """Keeps that something failed, and logs it unless that is what was logged last, or something was just now.

        Args:
            whose: a run's id, or empty.
            action: what could not be done.
            error: why; the traceback of one that nobody raised on purpose is logged too.
            now: the time.

        Returns:
            The trouble in one line.
        """
        message = explained(error)
        with self._lock:
            known = self._known.get((whose, action))
            pause = min(2 * known.pause, _LONGEST_PAUSE_SECONDS) if known else _FIRST_PAUSE_SECONDS
            news = known is None or (known.told != message and now - known.told_at >= _TOLD_AGAIN_AFTER_SECONDS)
            told, told_at = (message, now) if known is None or news else (known.told, known.told_at)
            self._known[whose, action] = _Trouble(message, pause, now, told, told_at)
        if news:
            unexpected = None if isinstance(error, EdgeflError) else error
            subject = f"run {whose}" if whose else "server"
            about = {"run": whose or None}
            _log.error("%s: cannot %s, will try again: %s", subject, action, message, exc_info=unexpected, extra=about)
        return message

    def clear(self, whose: str, action: str) -> None:
        """It worked."""
        if (whose, action) not in self._known:
            return
        with self._lock:
            known = self._known.pop((whose, action), None)
        if known is not None:
            subject, about = f"run {whose}" if whose else "server", {"run": whose or None}
            _log.warning("%s: no trouble any more: %s", subject, action, extra=about)

    def drop(self, whose: str) -> None:
        """Nothing is tried any more."""
        with self._lock:
            self._known = {key: each for key, each in self._known.items() if key[0] != whose}

    def rest(self, whose: str, action: str, now: float) -> float:
        """Seconds until it may be tried again; 0: now."""
        known = self._known.get((whose, action))
        return 0.0 if known is None else max(0.0, known.noted_at + known.pause - now)

    def forget(self, whose: str, action: str, now: float) -> None:
        """Drops a trouble that has not come again for ten minutes: nobody says that it is over."""
        known = self._known.get((whose, action))
        if known is not None and now - known.noted_at > _FORGOTTEN_AFTER_SECONDS:
            self.clear(whose, action)

    def count(self) -> int:
        """The number of things that do not work right now."""
        return len(self._known)

    def of(self, whose: str) -> list[str]:
        """Lists what operators are told."""
        with self._lock:
            return [f"cannot {action}: {each.message}" for (key, action), each in self._known.items() if key == whose]


def explained(error: Exception) -> str:
    """An error in one line."""
    text = error.message if isinstance(error, EdgeflError) else f"{type(error).__name__}: {error}".rstrip(": ")
    return " ".join(text.split())[:_LONGEST_MESSAGE]
