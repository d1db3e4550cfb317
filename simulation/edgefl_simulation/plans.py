"""Plain values: what is simulated, how far it has come, and what a round leaves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from edgefl.manifest import ModelManifest
from edgefl.metrics import around_training
from edgefl_device_runtime.tasks import MINIMUM_EXAMPLES
from edgefl_server.aggregation import (
    Believed,
    Blob,
    Folded,
    ModelLimits,
    RunSettings,
    Staleness,
    StrategyState,
    root_device_of,
)
from edgefl_simulation.attacks import Attack
from edgefl_simulation.fleet import Fleet
from edgefl_simulation.pace import Attended, Pace
from edgefl_simulation.tables import Rows
from edgefl_simulation.under_way import UnderWay

__all__ = ["Checkpoint", "Costs", "Plan", "Round"]


def _honest(device: int) -> Attack | None:
    return None


@dataclass(frozen=True)
class Plan:
    """The subject of a simulation.

    Attributes:
        manifest: of the model file.
        model: the file as tasks name it.
        settings: of the run, settled.
        fleet: who takes part.
        pace: when they are there, and how long they take.
        minimum_examples: a device with fewer takes no part.
        population: as tasks name it.
        run: likewise.
        attack: says what a device does that it should not; None: nothing.
    """

    manifest: ModelManifest
    model: Blob
    settings: RunSettings
    fleet: Fleet
    pace: Pace
    minimum_examples: int = MINIMUM_EXAMPLES
    population: str = "fleet"
    run: str = "simulated"
    attack: Callable[[int], Attack | None] = _honest

    @property
    def root(self) -> int | None:
        """The number of the root device, which is the last one; None: there is none."""
        return len(self.fleet) - 1 if root_device_of(self.settings) else None

    def rows(self, device: int) -> Rows:
        """The rows with which a device does its tasks."""
        return self.fleet.all_rows(device) if self.settings.local_test else self.fleet.rows(device)

    @property
    def believed(self) -> Believed:
        """Says how far devices are."""
        settings, limits, metrics = self.settings, ModelLimits.of(self.manifest), self.manifest.metrics
        if settings.local_test:
            limits, metrics = limits.around_training(), around_training(metrics)
        staleness = Staleness.in_run(settings, settings.schedule)
        return Believed(settings.max_examples, settings.max_weight_ratio, limits, metrics, staleness)

    def attended(self) -> Plan:
        """The plan with a root device that is always there and honest, whatever the others are."""
        root, attack = self.root, self.attack
        if root is None:
            return self
        return replace(
            self,
            pace=Attended(self.pace, root),
            attack=lambda device: None if device == root else attack(device),
        )

    @property
    def devices(self) -> int:
        """The devices of the fleet that cohorts are made of."""
        return len(self.fleet) if self.root is None else self.root


@dataclass(frozen=True)
class Checkpoint:
    """The progress of a run, between two folds.

    Attributes:
        state: the strategy's.
        version: the number of the weights.
        cohort: the latest cohort's number.
        fold: the number of the latest fold that is over.
        clock: simulated seconds.
        failed_in_a_row: of the latest folds.
        accepted: updates that were accepted so far.
        folded: each device's latest task that is part of the weights, where devices remember something of the run.
        late: how often each device was out of time, and when last.
        fetched: which devices have the model file: a bit each, as hexadecimal digits.
        values: of the metric that the run has patience with, of all folds.
        under_way: what the cohort has open that goes on to the next fold; None: there is none.
        past: of each device's latest accepted update its examples, its cohort and how many seconds it took, where
            devices are selected by it.
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
    fetched: str = ""
    values: tuple[float, ...] = ()
    past: dict[str, tuple[float, int, float]] = field(default_factory=dict)
    under_way: UnderWay | None = None

    @property
    def remembered(self) -> set[str]:
        """The tasks of which it is still asked what their devices remembered at their end."""
        return {*self.folded.values(), *(self.under_way.continued if self.under_way else ())}

    @property
    def to_keep(self) -> set[str]:
        """The same, and what open tasks may have left already."""
        return self.remembered | {each.task.task_id for each in (self.under_way.open if self.under_way else ())}


@dataclass(frozen=True)
class Costs:
    """The cost of a round.

    The round lasts as long as the device that closed it takes. What of that time it did not fetch, train or send is
    waiting: for devices that are there, for others, or for a deadline.

    Attributes:
        seconds: that the round took.
        phases: of these, seconds of ``download``, ``compute``, ``upload`` and ``waiting``; they add up to all.
        bytes_down: that devices fetched, for whatever became of their tasks.
        bytes_up: that they sent, accepted or not.
        device_seconds: for which devices were at tasks, all together.
        joules: that they spent on it; 0: not known.
        profiles: how many updates are from devices of which kind; nothing where there are no profiles.
        attackers: how many updates are from attackers.
    """

    seconds: float
    phases: dict[str, float]
    bytes_down: int
    bytes_up: int
    device_seconds: float
    joules: float = 0.0
    profiles: dict[str, int] = field(default_factory=dict)
    attackers: int = 0

    def plain(self) -> dict[str, Any]:
        """The same as plain values for a round's row; what there is none of is left out."""
        row: dict[str, Any] = {
            "bytes_down": self.bytes_down,
            "bytes_up": self.bytes_up,
            "simulated": {"seconds": self.seconds, **self.phases},
            "device_seconds": self.device_seconds,
        }
        if self.joules:
            row["energy_joules"] = self.joules
        if self.profiles:
            row["profiles"] = dict(sorted(self.profiles.items()))
        if self.attackers:
            row["attackers"] = self.attackers
        return row


@dataclass(frozen=True)
class Round:
    """A fold that is over.

    Attributes:
        fold: its number.
        version: of the weights after it.
        clock: simulated seconds since the beginning; None: time was real.
        folded: what it left; None: it failed.
        outcomes: how many tasks ended how: ``done``, ``declined``, ``failed``.
        staleness: of each update that was folded, in versions; nothing where none can be stale.
        why: what ended it, when that was not simply enough outcomes.
        errors: what single devices said, each text once.
        costs: time, bytes and what devices spent; None: time was real.
        over: the run is over with it.
        failed: why the run failed; empty otherwise.
        enough: why the run is done before its last round; empty otherwise.
    """

    fold: int
    version: int
    clock: float | None
    folded: Folded | None
    outcomes: dict[str, int]
    staleness: tuple[int, ...]
    why: str
    errors: tuple[str, ...]
    costs: Costs | None
    over: bool
    failed: str = ""
    enough: str = ""
