"""Rounds until a target accuracy: the experiment of McMahan et al. 2017, table 2, on Fashion-MNIST.

100 devices, a tenth of them each round (C = 0.1), batches of 10 (B), E local epochs by plain SGD, FedAvg; the test
images are evaluated after every round, with the CNN after every second one. IID: 600 images each, at random. Not IID:
images sorted by class, cut into 200 shards, two on each device. What was computed is kept in the folder, so that a run
that was broken off goes on where it was; the same seed gives the same rounds.

    python benchmarks/rounds_to_target.py --folder bench/rounds_to_target
    python benchmarks/rounds_to_target.py --folder bench/rounds_to_target --cases "2NN, IID, E = 1"
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import NamedTuple

import edgefl
from fleets.preparing import prepare

SEED = 2017


class Case(NamedTuple):
    """One row of the table.

    Attributes:
        model: as `prepare` takes it.
        partition: as `edgefl.simulate` takes it.
        epochs: E.
        target: the accuracy.
        most: rounds after which it is given up.
        every: rounds between two evaluations.
    """

    model: str
    partition: str
    epochs: int
    target: float
    most: int
    every: int = 1


CASES = {
    "2NN, IID, E = 1": Case("2nn", "iid", 1, 0.86, 400),
    "2NN, two shards, E = 1": Case("2nn", "shard:2", 1, 0.80, 600),
    "2NN, IID, E = 5": Case("2nn", "iid", 5, 0.86, 200),
    "2NN, two shards, E = 5": Case("2nn", "shard:2", 5, 0.80, 300),
    "CNN, IID, E = 1": Case("fedavg_cnn", "iid", 1, 0.86, 100, 2),
    "CNN, two shards, E = 1": Case("fedavg_cnn", "shard:2", 1, 0.75, 200, 2),
}


def main() -> None:
    """Runs the cases and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="for what is computed")
    parser.add_argument("--cases", default=";".join(CASES), help="which, divided by semicolons (default: all)")
    parser.add_argument("--workers", type=int, default=2, help="processes that train")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    arguments = parser.parse_args()
    table = {}
    for name in map(str.strip, arguments.cases.split(";")):
        case = CASES[name]
        place = prepare(case.model, arguments.folder / "files")
        history = edgefl.simulate(
            place / "model.tflite",
            "fashion-mnist",
            devices=100,
            partition=case.partition,
            rounds=case.most,
            cohort=10,
            epochs=case.epochs,
            seed=SEED,
            evaluate_every=case.every,
            evaluate_devices=0,
            until={"accuracy": case.target},
            workers=arguments.workers,
            out=arguments.folder / name.replace(", ", "-").replace(" ", ""),
            resume=True,
        )
        accuracies = history.metric("accuracy")
        reached = bool(history.stopped)
        table[name] = {
            "target": case.target,
            "rounds": len(history.rounds) if reached else None,
            "most": case.most,
            "best": max(accuracies),
        }
        said = str(len(history.rounds)) if reached else f"more than {case.most}"
        print(f"{name:24} to {case.target:.0%}: {said:>14} rounds (best {max(accuracies):.1%})", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(table, indent=2) + "\n")


if __name__ == "__main__":
    main()
