"""Selection: which of the enrolled devices a cohort admits, and when. Pure, and the same whoever asks first.

A device that polls is either there or not, and no server can wait for one that it has drawn. So a selection gives every
enrolled device a key, from a seed and what is known of it; a cohort first admits those with the smallest keys, as many
as it has places, and after each window twice as many, in the same order: whoever was drawn and does not come within
a window has the next in line beside it. Who is drawn follows from the seed; who comes decides no more than who of them
takes the places.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from edgefl.errors import InvalidSettingError
from edgefl.plugins import Registry
from edgefl_server.aggregation.hyperparameters import SettingError, setting

__all__ = ["FIRST_COME", "SELECTIONS", "Admission", "Candidate", "Selecting", "admission_of", "key_of"]

FIRST_COME = "first-come"


@dataclass(frozen=True)
class Candidate:
    """The facts that are known of a device that a cohort may admit.

    Attributes:
        device: its id.
        num_examples: of its latest accepted outcome in the run; where there is none, the mean of those of the others.
        latest: the number of the cohort of that outcome; 0: there is none.
        seconds: from the hand-out of its task until it was accepted; 0: not known.
        capabilities: what the device says that it can do (docs/protocol.md); whatever it does not say is not there.
    """

    device: str
    num_examples: float = 1.0
    latest: int = 0
    seconds: float = 0.0
    capabilities: Mapping[str, Any] = field(default_factory=dict)


Selection = Callable[[Candidate, float, "Selecting"], float]
"""Gives a candidate its key, from a number in (0, 1) drawn for it and the settings; infinity: it is not admitted."""


def _check(name: str, entry: object) -> None:
    if not callable(entry):
        raise InvalidSettingError("it gives no key to a candidate.")


SELECTIONS: Registry[Selection] = Registry("selection", "edgefl.selections", check=_check)


@SELECTIONS.register(FIRST_COME)
def _first_come(candidate: Candidate, drawn: float, settings: Selecting) -> float:
    """All alike: whoever asks first has the place."""
    return 0.0


@SELECTIONS.register("random")
def _random(candidate: Candidate, drawn: float, settings: Selecting) -> float:
    """Every device as likely as any other, without replacement."""
    return drawn


@SELECTIONS.register("by-size")
def _by_size(candidate: Candidate, drawn: float, settings: Selecting) -> float:
    """As likely as its number of examples, without replacement: Efraimidis and Spirakis 2006, algorithm A."""
    return -math.log(drawn) / max(1.0, candidate.num_examples)


@SELECTIONS.register("least-recent")
def _least_recent(candidate: Candidate, drawn: float, settings: Selecting) -> float:
    """First who has not taken part for longest, and of equals a random one."""
    return candidate.latest + drawn


@SELECTIONS.register("fastest")
def _fastest(candidate: Candidate, drawn: float, settings: Selecting) -> float:
    """First whose latest task took the least time, and before all those of whom that is not known."""
    return candidate.seconds + (0.0 if candidate.seconds else drawn - 1.0)


@SELECTIONS.register("capable")
def _capable(candidate: Candidate, drawn: float, settings: Selecting) -> float:
    """Random ones of those that do not say that they have less memory than is needed."""
    memory = candidate.capabilities.get("memory_bytes")
    return math.inf if type(memory) is int and memory < settings.selection_memory_bytes else drawn


@dataclass(frozen=True, kw_only=True)
class Selecting:
    """The settings of a run about whom a cohort admits.

    Attributes:
        selection: a name of `SELECTIONS`.
        selection_window: seconds that those who were drawn have before others may come as well.
        selection_memory_bytes: what a device must have for the selection ``capable``.
    """

    selection: str = setting(FIRST_COME, help="Which devices a round asks: {names}.")
    selection_window: float = setting(
        60.0, help="Seconds that the chosen ones have to come.", shown="60", lowest=1, highest=31e6
    )
    selection_memory_bytes: int = setting(0, help="Capable: memory that is needed.", lowest=0, highest=2**60)

    def check_selection(self) -> None:
        """Refuses a selection that is none, and settings of another one.

        Raises:
            SettingError: there is one.
        """
        if self.selection not in SELECTIONS.names():
            raise SettingError(
                f"{{selection}} expects one of {', '.join(SELECTIONS.names())}, got {self.selection!r:.80}.",
                hint=SELECTIONS.nearest(self.selection),
            )
        if self.selection == FIRST_COME and self.selection_window != 60:
            raise SettingError(
                f"{{selection_window}} has no meaning with {{selection}} {FIRST_COME}.", hint="Leave it out."
            )
        if (self.selection == "capable") != (self.selection_memory_bytes > 0):
            raise SettingError(
                "{selection} capable and {selection_memory_bytes} have a meaning together only, got "
                f"{self.selection} and {self.selection_memory_bytes}.",
                hint="Give both, or neither.",
            )


@dataclass(frozen=True)
class Admission:
    """Says whom a cohort admits when.

    Attributes:
        bars: the largest key that is admitted, window after window; the last one stays.
        usual: the mean number of examples, for devices of which it is not known.
        window: seconds.
    """

    bars: tuple[float, ...]
    usual: float
    window: float

    def admits(self, key: float, opened_at: float | None, now: float) -> bool:
        """Whether a device with a key may have a task now; `opened_at` is when the cohort began to wait."""
        if key == math.inf:
            return False
        passed = 0 if opened_at is None else max(0, int((now - opened_at) // self.window))
        return key <= self.bars[min(passed, len(self.bars) - 1)]

    def next_window(self, opened_at: float, now: float) -> float:
        """The time from which more are admitted; infinity: all are."""
        passed = max(0, int((now - opened_at) // self.window)) + 1
        return opened_at + passed * self.window if passed < len(self.bars) else math.inf

    def to_json(self) -> dict[str, Any]:
        """The admission as plain values; the last bar, which is infinite, is None."""
        return {"bars": [None if bar == math.inf else bar for bar in self.bars], "usual": self.usual}

    @classmethod
    def from_json(cls, document: Mapping[str, Any], window: float) -> Admission | None:
        """Reads what `to_json` wrote; None: all are admitted."""
        if not document:
            return None
        bars = tuple(math.inf if bar is None else float(bar) for bar in document["bars"])
        return cls(bars, float(document["usual"]), window)


def key_of(candidate: Candidate, settings: Selecting, seed: int, cohort: int) -> float:
    """A device's key in a cohort.

    Args:
        candidate: what is known of it from the cohorts before.
        settings: the run's.
        seed: the run's.
        cohort: the number of the cohort.

    Raises:
        SettingError: a selection from outside gives no number.
    """
    digest = hashlib.sha256(f"edgefl selection {seed} {cohort} {candidate.device}".encode()).digest()
    drawn = (int.from_bytes(digest[:8], "little") // 2**11 + 0.5) / 2**53
    key = SELECTIONS.get(settings.selection)(candidate, drawn, settings)
    if not isinstance(key, (int, float)) or math.isnan(key):
        raise SettingError(f"{{selection}} {settings.selection} expects to give a number, got {key!r:.80}.")
    return float(key)


def admission_of(keys: Iterable[float], places: int, usual: float, settings: Selecting) -> Admission:
    """Says whom a cohort admits when.

    Args:
        keys: of all enrolled devices.
        places: of the cohort.
        usual: see `Admission`.
        settings: the run's.
    """
    admitted = sorted(key for key in keys if key < math.inf)
    bars, rank = [], places
    while rank < len(admitted):
        bars.append(admitted[rank - 1])
        rank *= 2
    return Admission((*bars, math.inf), usual, settings.selection_window)
