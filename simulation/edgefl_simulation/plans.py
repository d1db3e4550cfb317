"""Plain values: what is simulated, how far it has come, and what a round leaves."""

from __future__ import annotations

from dataclasses import dataclass, field

from edgefl.manifest import ModelManifest
from edgefl_device_runtime.tasks import MINIMUM_EXAMPLES
from edgefl_server.aggregation import Blob, Folded, RunSettings, StrategyState
from edgefl_simulation.fleet import Fleet
from edgefl_simulation.pace import Pace

__all__ = ["Checkpoint", "Plan", "Round"]


@dataclass(frozen=True)
class Plan:
    """The subject of a simulation.

    Attributes:
        manifest: of the model file.
        model: the file as tasks name it.
        settings: of the run, settled.
        fleet: who takes part.
        pace: how long they take.
        minimum_examples: a device with fewer takes no part.
        population: as tasks name it.
        run: likewise.
    """

    manifest: ModelManifest
    model: Blob
    settings: RunSettings
    fleet: Fleet
    pace: Pace
    minimum_examples: int = MINIMUM_EXAMPLES
    population: str = "fleet"
    run: str = "simulated"


@dataclass(frozen=True)
class Checkpoint:
    """The progress of a run, between two folds.

    Attributes:
        state: the strategy's.
        version: the number of the weights.
        cohort: the latest cohort's number.
        fold: the latest fold's number.
        clock: simulated seconds.
        failed_in_a_row: of the latest folds.
        accepted: updates that were accepted so far.
        folded: each device's latest task that is part of the weights, where devices remember something of the run.
        late: how often each device was out of time, and when last.
    """

    state: StrategyState
    version: int = 0
    cohort: int = 0
    fold: int = 0
    clock: float = 0.0
    failed_in_a_row: int = 0
    accepted: int = 0
    folded: dict[str, str] = field(default_factory=dict)
    late: dict[str, tuple[int, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Round:
    """A fold that is over.

    Attributes:
        fold: its number.
        version: of the weights after it.
        clock: simulated seconds since the beginning; None: time was real.
        folded: what it left; None: it failed.
        outcomes: how many tasks ended how: ``done``, ``declined``, ``failed``.
        staleness: of each update that was folded, in versions.
        why: what ended it, when that was not simply enough outcomes.
        errors: what single devices said, each text once.
        over: the run is over with it.
        failed: why the run failed; empty otherwise.
    """

    fold: int
    version: int
    clock: float | None
    folded: Folded | None
    outcomes: dict[str, int]
    staleness: tuple[int, ...]
    why: str
    errors: tuple[str, ...]
    over: bool
    failed: str = ""
