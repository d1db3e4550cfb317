"""Simulated time to one accuracy: a buffer (FedBuff) beside synchronous rounds, in a fleet of unlike devices.

McMahan's 2NN on Fashion-MNIST, 100 devices (Dirichlet 0.5), batches of 10, one epoch. 70 % of the devices are equal
shares of Pi Zero 2, Pi 3, Pi 4 and Pi 5, as `edgefl profiles` has them; 30 % are stragglers: Pi Zeros that do anything
else besides and compute ten times slower, behind a mobile network a tenth as fast. All contenders train with the same
seeds and are evaluated after every fold; each seed draws another partition and another fleet.

- ``synchronous``: a cohort of K devices, and the round waits for each.
- ``over-selected``: 130 % of K are asked and the first K taken (Bonawitz et al. 2019): the stragglers' data is lost.
- ``buffered, K open``: the FedBuff schedule with K updates a fold, and no more devices at work than in a round.
- ``buffered``: the same with as many at work as there are unless one says otherwise, 4 K.
- ``FedAsync``: every update by itself, with K tasks open.

The time is the virtual clock's, so that it depends on no machine; results are kept in the folder. What is shown is the
mean over the seeds, and of the time the least and the largest.

    python benchmarks/schedules.py --folder bench/schedules
    python benchmarks/schedules.py --folder bench/schedules --contenders "synchronous;buffered" --seeds 2022
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import edgefl
from fleets.preparing import prepare

DEVICES, K, SLOWER = 100, 10, 10.0
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
    parser.add_argument("--seeds", default="2022,2023,2024", help="which (default: %(default)s)")
    parser.add_argument("--accuracy", type=float, default=0.82, help="on the test images (default: 0.82)")
    parser.add_argument("--workers", type=int, default=1, help="processes that train")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    place = prepare("2nn", arguments.folder)
    names, seeds = arguments.contenders.split(";"), [int(each) for each in arguments.seeds.split(",")]
    runs = [
        measure(name, seed, place, arguments.folder, arguments.accuracy, arguments.workers)
        for seed in seeds
        for name in names
    ]
    (arguments.folder / "schedules.json").write_text(json.dumps(runs, indent=1))
    rows = [together([run for run in runs if run["name"] == name], runs, names[0]) for name in names]
    show(rows, arguments.accuracy)
    ratios = {row["name"]: row["ratio"] for row in rows}
    if "buffered" in ratios and ratios["buffered"] < MUST:
        sys.exit(f"The buffer must be {MUST:g} × as fast as synchronous rounds, and is {ratios['buffered']:.2f} ×.")


def measure(name: str, seed: int, place: Path, folder: Path, accuracy: float, workers: int) -> dict[str, Any]:
    """Simulates one contender with one seed until the accuracy is reached."""
    print(f"{name}, seed {seed} …", file=sys.stderr, flush=True)
    wanted = {"evaluate_devices": 0, "batch_size": 10, "seed": seed, "partition": "dirichlet:0.5", **CONTENDERS[name]}
    history = edgefl.simulate(
        place / "model.tflite",
        "fashion-mnist",
        devices=DEVICES,
        profile=FLEET,
        until={"accuracy": accuracy},
        workers=workers,
        out=folder / f"{name.replace(', ', '-').replace(' ', '-')}-{seed}",
        resume=True,
        **wanted,
    )
    last = history.rounds[-1]
    stale = [each for row in history.rounds for each in row.get("staleness", [])]
    return {
        "name": name,
        "seed": seed,
        "reached": bool(history.stopped),
        "seconds": last["clock"],
        "folds": len(history.rounds),
        "updates": sum(row["outcomes"].get("done", 0) for row in history.rounds),
        "bytes_up": sum(row["bytes_up"] for row in history.rounds),
        "waiting": sum(row["simulated"]["waiting"] for row in history.rounds) / last["clock"],
        "staleness": sum(stale) / len(stale) if stale else 0.0,
        "stragglers": sum(row.get("profiles", {}).get("straggler", 0) for row in history.rounds),
    }


def together(runs: list[dict[str, Any]], others: list[dict[str, Any]], first: str) -> dict[str, Any]:
    """The means over one contender's runs; the ratio is to the first contender with the same seed."""
    firsts = {each["seed"]: each["seconds"] for each in others if each["name"] == first}
    figures = [name for name in runs[0] if name not in ("name", "seed", "reached")]
    return {
        "name": runs[0]["name"],
        "reached": all(each["reached"] for each in runs),
        "ratio": statistics.fmean(firsts[each["seed"]] / each["seconds"] for each in runs),
        "least": min(each["seconds"] for each in runs),
        "largest": max(each["seconds"] for each in runs),
        **{name: statistics.fmean(each[name] for each in runs) for name in figures},
    }


def show(rows: list[dict[str, Any]], accuracy: float) -> None:
    """Prints the table."""
    print(f"\nSimulated seconds to an accuracy of {accuracy:.0%}")
    heads = {"seconds": 26, "times as fast": 15, "folds": 8, "updates": 9, "stragglers": 12, "MB up": 8, "behind": 8}
    print(" " * 20 + "".join(f"{name:>{width}}" for name, width in heads.items()))
    for row in rows:
        seconds = f"{row['seconds']:.1f} ({row['least']:.1f} – {row['largest']:.1f})"
        said = f"{seconds:>26}{row['ratio']:13.2f} ×" if row["reached"] else f"{'not reached':>41}"
        print(
            f"{row['name']:20}{said}{row['folds']:8.0f}{row['updates']:9.0f}{row['stragglers'] / row['updates']:12.0%}"
            f"{row['bytes_up'] / 1e6:8.0f}{row['staleness']:8.1f}"
        )


if __name__ == "__main__":
    main()
