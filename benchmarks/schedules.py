"""Simulated time to one accuracy: a buffer (FedBuff) beside synchronous rounds, in a fleet of unlike devices.

McMahan's 2NN on Fashion-MNIST, 100 devices (Dirichlet 0.5), batches of 10, one epoch. 70 % of the devices are equal
shares of Pi Zero 2, Pi 3, Pi 4 and Pi 5, as `edgefl profiles` has them; 30 % are stragglers: Pi Zeros that do anything
else besides and compute ten times slower, behind a mobile network a tenth as fast. All contenders train with the same
seed and are evaluated after every fold.

- ``synchronous``: a cohort of K devices, and the round waits for each.
- ``over-selected``: 130 % of K are asked and the first K taken (Bonawitz et al. 2019): the stragglers' data is lost.
- ``buffered, K open``: the FedBuff schedule with K updates a fold, and no more devices at work than in a round.
- ``buffered``: the same with as many at work as there are unless one says otherwise, 4 K.
- ``FedAsync``: every update by itself, with K tasks open.

The time is the virtual clock's, so that it depends on no machine; results are kept in the folder.

    python benchmarks/schedules.py --folder bench/schedules
    python benchmarks/schedules.py --folder bench/schedules --contenders "synchronous;buffered" --accuracy 0.7
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import edgefl
from fleets.preparing import prepare

SEED, DEVICES, K, SLOWER = 2022, 100, 10, 10.0
MUST = 3.0
"""Times as fast as synchronous rounds."""
STRAGGLER: dict[str, Any] = {
    "like": "pi-zero-2",
    "name": "straggler",
    "share": 0.3,
    "compute": {"gflops": 2.89 / SLOWER},
    "network": {"down_mbit_s": 3.6, "up_mbit_s": 3.6},
}
FLEET = {
    "devices": [*({"like": name, "share": 0.175} for name in ("pi-zero-2", "pi3", "pi4", "pi5")), STRAGGLER],
}
CONTENDERS: dict[str, dict[str, Any]] = {
    "synchronous": {"cohort": K, "rounds": 300},
    "over-selected": {"cohort": K, "rounds": 300, "over_selection": 1.3},
    "buffered, K open": {"cohort": K, "rounds": 600, "schedule": "buffered", "strategy": "fedbuff", "concurrency": K},
    "buffered": {"cohort": K, "rounds": 600, "schedule": "buffered", "strategy": "fedbuff"},
    "FedAsync": {
        **{"cohort": 1, "rounds": 6000, "schedule": "buffered", "strategy": "fedasync", "concurrency": K},
        **{"mixing": 0.2, "evaluate_every": 10},
    },
}


def main() -> None:
    """Runs the contenders and prints the table; exits with 1 where the buffer is not as fast as it must be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="for what is computed")
    parser.add_argument("--contenders", default=";".join(CONTENDERS), help="which, divided by semicolons")
    parser.add_argument("--accuracy", type=float, default=0.82, help="on the test images (default: 0.82)")
    parser.add_argument("--workers", type=int, default=1, help="processes that train")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    place = prepare("2nn", arguments.folder)
    rows = [
        measure(
            name,
            place,
            arguments.folder / name.replace(", ", "-").replace(" ", "-"),
            arguments.accuracy,
            arguments.workers,
        )
        for name in arguments.contenders.split(";")
    ]
    show(rows, arguments.accuracy)
    (arguments.folder / "schedules.json").write_text(json.dumps(rows, indent=1))
    ratios = {row["name"]: row["ratio"] for row in rows}
    if "buffered" in ratios and ratios["buffered"] < MUST:
        sys.exit(f"The buffer must be {MUST:g} × as fast as synchronous rounds, and is {ratios['buffered']:.2f} ×.")


def measure(name: str, place: Any, folder: Path, accuracy: float, workers: int) -> dict[str, Any]:
    """Simulates one contender until the accuracy is reached."""
    print(f"{name} …", file=sys.stderr, flush=True)
    wanted = {"evaluate_devices": 0, "batch_size": 10, "seed": SEED, "partition": "dirichlet:0.5", **CONTENDERS[name]}
    history = edgefl.simulate(
        place / "model.tflite",
        "fashion-mnist",
        devices=DEVICES,
        profile=FLEET,
        until={"accuracy": accuracy},
        workers=workers,
        out=folder,
        resume=True,
        **wanted,
    )
    last = history.rounds[-1]
    stale = [each for row in history.rounds for each in row.get("staleness", [])]
    return {
        "name": name,
        "reached": bool(history.stopped),
        "seconds": last["clock"],
        "folds": len(history.rounds),
        "updates": sum(row["outcomes"].get("done", 0) for row in history.rounds),
        "bytes_up": sum(row["bytes_up"] for row in history.rounds),
        "waiting": sum(row["simulated"]["waiting"] for row in history.rounds) / last["clock"],
        "staleness": sum(stale) / len(stale) if stale else 0.0,
        "stragglers": sum(row.get("profiles", {}).get("straggler", 0) for row in history.rounds),
    }


def show(rows: list[dict[str, Any]], accuracy: float) -> None:
    """Prints the table, and adds to each row how many times as fast as the first it is."""
    print(f"\nSimulated seconds to an accuracy of {accuracy:.0%}")
    heads = {"seconds": 10, "times as fast": 15, "folds": 8, "updates": 9, "stragglers": 12, "MB up": 8, "behind": 8}
    print(" " * 20 + "".join(f"{name:>{width}}" for name, width in heads.items()))
    for row in rows:
        row["ratio"] = rows[0]["seconds"] / row["seconds"] if row["reached"] else 0.0
        said = f"{row['seconds']:10.1f}{row['ratio']:13.2f} ×" if row["reached"] else f"{'not reached':>25}"
        print(
            f"{row['name']:20}{said}{row['folds']:8}{row['updates']:9}{row['stragglers'] / row['updates']:12.0%}"
            f"{row['bytes_up'] / 1e6:8.0f}{row['staleness']:8.1f}"
        )


if __name__ == "__main__":
    main()
