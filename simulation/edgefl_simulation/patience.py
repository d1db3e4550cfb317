"""Says when a simulated round will never end: a server would wait for ever, but here nobody ever repairs a device."""

from __future__ import annotations

from collections.abc import Iterable

from edgefl.errors import RunError

__all__ = ["Patience"]

_LONGEST_WAIT = 86_400.0
"""Simulated seconds without an outcome, or three tasks' longest times, after which a run is taken to be stuck.

While no device is there, and the next one's return is known, it is not.
"""
_LONGEST_ABSENCE = 30 * 86_400.0
"""Simulated seconds without an outcome after which it is, all the same: devices come, and never stay long enough."""


class Patience:
    """The patience with devices.

    Args:
        now: in simulated seconds since the beginning of the run.
        task_seconds: the longest that a task may take.
    """

    def __init__(self, now: float, task_seconds: float) -> None:
        self._longest = max(_LONGEST_WAIT, 3 * task_seconds)
        self._hopeful_at = self._latest = now

    @property
    def marks(self) -> tuple[float, float]:
        """The times until which there is hope, and since which nothing came: all that it knows."""
        return self._hopeful_at, self._latest

    def resume(self, marks: tuple[float, float]) -> None:
        """Goes on from its marks."""
        self._hopeful_at, self._latest = marks

    def renew(self, now: float) -> None:
        """Something came, or a round begins."""
        self._hopeful_at = self._latest = now

    def expect(self, time: float) -> None:
        """Nothing is under way, but devices will be there at a time."""
        self._hopeful_at = max(self._hopeful_at, time)

    def check(self, now: float, standing: str, said: Iterable[str]) -> None:
        """Makes sure that something can still come.

        Args:
            now: as above.
            standing: what there is so far: ``Round 3 has 2 of 5 outcomes``.
            said: what devices said.

        Raises:
            RunError: nothing has for so long that nothing will.
        """
        absence = max(self._longest, _LONGEST_ABSENCE)
        if now - self._latest > absence:
            longest = absence
        elif now - self._hopeful_at > self._longest:
            longest = self._longest
        else:
            return
        words = " / ".join(said)
        raise RunError(
            f"{standing}, and no further one came for {longest:,.0f} simulated seconds.",
            hint=f"Devices said: {words}" if words else "Give it a deadline.",
        )
