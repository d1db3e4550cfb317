"""Says how long emulated devices take, in simulated seconds, and whether they come back at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from edgefl.errors import InvalidSettingError
from edgefl_simulation.draws import uniform

__all__ = ["Pace", "Steady"]


class Pace(Protocol):
    """A rule for how long a device takes."""

    def seconds(self, seed: int, task_id: str, device: int, steps: int) -> float | None:
        """Says how long after it was asked a device's outcome arrives; None: never.

        Args:
            seed: of the run.
            task_id: of its task, for whatever is drawn anew each time.
            device: its number in the fleet.
            steps: that it is to take.
        """
        ...


@dataclass(frozen=True)
class Steady:
    """Every device takes the same time for a step, and as long for all that is beside its steps.

    Attributes:
        step_seconds: of one step.
        overhead_seconds: of all else: fetching, loading, sending.
        drop_out: the share of tasks whose device is not heard of again, as if it were switched off.
    """

    step_seconds: float = 0.01
    overhead_seconds: float = 1.0
    drop_out: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.drop_out < 1:
            raise InvalidSettingError(
                f"The drop-out expects a share from 0 up to but not including 1, got {self.drop_out}."
            )
        if not (self.step_seconds >= 0 and self.overhead_seconds >= 0):
            raise InvalidSettingError("A step, and all beside, expect seconds of at least 0.")

    def seconds(self, seed: int, task_id: str, device: int, steps: int) -> float | None:
        """See `Pace`."""
        if self.drop_out and uniform(seed, "drop-out", task_id) < self.drop_out:
            return None
        return self.overhead_seconds + steps * self.step_seconds
