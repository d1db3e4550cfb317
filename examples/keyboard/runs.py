"""The simulations: what travels, what stays, and what goes wrong."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import edgefl
from edgefl import History
from edgefl_simulation import Personalisation
from examples.keyboard.devices import FleetData
from examples.keyboard.files import files

__all__ = ["COMPARED", "QUICK", "RUNS", "Run", "Size", "simulate"]

SEED = 1623
GENTLE = 0.001
"""The learning rate of a device that goes on alone; in rounds it is the model file's."""
BOARDS: Mapping[str, Any] = {"devices": [{"like": "pi4", "share": 0.5}, {"like": "pi-zero-2", "share": 0.5}]}
LEAVING: Mapping[str, Any] = {"devices": [{**board, "reliability": {"drop_out": 0.3}} for board in BOARDS["devices"]]}
ATTACKED: Mapping[str, Any] = {**BOARDS, "attackers": [{"kind": "sign-flip", "share": 0.2, "factor": 5.0}]}


@dataclass(frozen=True)
class Size:
    """How large everything is.

    Attributes:
        rounds: of each simulation.
        cohort: devices in a round.
        epochs: passes over a device's own windows in a round.
        every: rounds from one evaluation to the next.
        most: windows of one role at most.
        unseen: windows of the play that nobody trains on.
        steps: of the base's training.
        width: of the model.
        blocks: of the model.
        words: that the keyboard is to guess.
        verify: whether model files are trained beside Keras before they are written.
        target: of the cost to a target: the share of characters guessed right.
        budget_bytes: of the quality under a budget, down and up, of all devices.
        workers: processes of the simulations; 0: one for each core.
    """

    rounds: int = 16
    cohort: int = 10
    epochs: int = 1
    every: int = 4
    most: int = 160
    unseen: int = 400
    steps: int = 2000
    width: int = 96
    blocks: int = 2
    words: int = 1000
    verify: bool = True
    target: float = 0.46
    budget_bytes: int = 150_000_000
    workers: int = 0


QUICK = Size(
    rounds=2, cohort=3, every=2, most=10, unseen=16, steps=3, width=32, blocks=1, words=12, verify=False, target=0.01,
    workers=1,
)  # fmt: skip
"""To see that everything runs; nothing is learnt."""


@dataclass(frozen=True)
class Run:
    """A simulation.

    Attributes:
        file: the model file, by name.
        what: one line for people.
        settings: in which it differs from the others, as `edgefl.simulate` takes them.
    """

    file: str
    what: str
    settings: Mapping[str, Any]


RUNS: Mapping[str, Run] = {
    "adapters": Run("adapters", "adapters travel", {}),
    "personal": Run("personal", "some adapters stay on their devices", {}),
    "whole": Run("whole", "the whole network travels", {"learning_rate": 0.001}),
    "leaving": Run(
        "adapters",
        "of ten devices three go away, nobody waits",
        {"profile": LEAVING, "deadline_seconds": 20, "minimum": 3},
    ),
    "attacked": Run("adapters", "a fifth of the devices send the opposite", {"profile": ATTACKED}),
    "defended": Run("adapters", "so they do, under a robust rule", {"profile": ATTACKED, "strategy": "robust"}),
}
"""All of them, in the order in which they are done; the first is the yardstick."""

COMPARED = tuple(name for name in RUNS if name != "personal")
"""Those that the protocols are about, which look at the unseen play: there, nothing is personal."""


def simulate(name: str, out: Path, data: FleetData, size: Size, say: Callable[[str], None]) -> History:
    """Simulates a fleet of which each device is a role.

    Args:
        name: of the run.
        out: has the model files; gets a folder ``runs/NAME``, which replaces an earlier one.
        data: what the devices hold.
        size: of it all.
        say: told a line for each round that was evaluated.

    Raises:
        EdgeflError: it fails.
    """
    run, folder = RUNS[name], out / "runs" / name
    if folder.exists():
        shutil.rmtree(folder)

    def tell(row: Mapping[str, Any]) -> None:
        if "central" in row:
            accuracy = row["central"]["accuracy"]
            say(f"  {name}: round {row['round']:2}/{size.rounds}, {accuracy:.1%} of the unseen play's characters")

    return edgefl.simulate(
        files(out)[run.file],
        data.arrays,
        out=folder,
        partition="natural-id",
        rounds=size.rounds,
        cohort=size.cohort,
        epochs=size.epochs,
        seed=SEED,
        local_test=0.2,
        evaluate_every=size.every,
        evaluate_devices=len(data.roles),
        personalise=0 if run.settings else Personalisation(size.epochs, learning_rate=GENTLE),
        workers=size.workers,
        verbose=False,
        on_round=tell,
        **{"profile": BOARDS, **run.settings},
    )
