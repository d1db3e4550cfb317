"""The rests of devices that were out of time, and get no task of the run for now."""

from __future__ import annotations

from collections.abc import Callable, Mapping

__all__ = ["Rests"]


class Rests:
    """The devices that were out of time.

    Args:
        late: as `Checkpoint` has it.

    Attributes:
        late: likewise, as far as the run has come.
    """

    def __init__(self, late: Mapping[str, tuple[int, float]]) -> None:
        self.late = dict(late)

    def note(self, device: str, now: float) -> None:
        """A task of a device was out of time."""
        times, _ = self.late.get(device, (0, 0.0))
        self.late[device] = times + 1, now

    def rests(self, device: str, now: float, seconds: Callable[[int], float]) -> bool:
        """Says whether a device gets no task for now.

        Args:
            device: which.
            now: simulated seconds since the beginning.
            seconds: for how long after it was out of time for the n-th time.
        """
        times, latest = self.late.get(device, (0, 0.0))
        return times > 0 and now < latest + seconds(times)
