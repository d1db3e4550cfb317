"""Selects devices as a server does, from what a simulation knows of them."""

from __future__ import annotations

import math
from collections.abc import Mapping

from edgefl_server.aggregation import FIRST_COME, Admission, Candidate, admission_of, key_of
from edgefl_simulation.plans import Plan

__all__ = ["Selecting"]


class Selecting:
    """The selection of a run's cohorts.

    Args:
        plan: what is simulated.
        past: as `Checkpoint` has it.

    Attributes:
        past: likewise, as far as the run has come.
    """

    def __init__(self, plan: Plan, past: Mapping[str, tuple[float, int, float]]) -> None:
        self._plan, self._settings = plan, plan.settings
        self.past = dict(past)
        self._keys: list[float] = []

    def admission(self, cohort: int) -> tuple[Admission | None, list[int] | None]:
        """Says whom a cohort admits when, and in which order devices ask; None: whoever asks first, and no order."""
        settings = self._settings
        if settings.selection == FIRST_COME:
            return None, None
        known = self.past.values()
        usual = math.fsum(examples for examples, _, _ in known) / len(known) if known else 1.0
        seed = settings.effective_seed
        names = self._plan.fleet.names[: self._plan.devices]
        self._keys = [key_of(self._candidate(name, usual), settings, seed, cohort) for name in names]
        order = sorted(range(len(self._keys)), key=self._keys.__getitem__)
        return admission_of(self._keys, settings.cohort_size, usual, settings), order

    def key(self, device: int) -> float:
        """A device's key in the cohort that is asked."""
        return self._keys[device]

    def note(self, device: str, num_examples: int, cohort: int, seconds: float) -> None:
        """Notes that an update was accepted."""
        if self._settings.selection != FIRST_COME:
            self.past[device] = float(num_examples), cohort, seconds

    def _candidate(self, device: str, usual: float) -> Candidate:
        past = self.past.get(device)
        return Candidate(device, usual) if past is None else Candidate(device, *past)
