"""Strategies for unlike data beside FedAvg where data are mildly unlike: none may be worse by more than a point.

McMahan's 2NN on Fashion-MNIST, 100 devices (Dirichlet 0.5, so that they have unlike classes and numbers of images), 10
a round, one local epoch in batches of 10 by plain SGD with a rate of 0.05. The accuracy is that on the test images, as
the mean of the last rounds, and of several seeds; each seed draws another partition. No order is promised: here it is
none that lasts from one seed to the next (Li et al. 2022, "Federated Learning on Non-IID Data Silos", say the same).

What was computed is kept in the folder, so that a run that was broken off goes on where it was.

    python benchmarks/unlike_data.py --folder bench/unlike_data
    python benchmarks/unlike_data.py --folder bench/unlike_data --seeds 1 --rounds 40 --strategies fedavg;scaffold
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

import edgefl

DEVICES, COHORT, BATCH, RATE, LAST = 100, 10, 10, 0.05, 10
WITHIN = 1.0
"""Points that a strategy may be below FedAvg."""
STRATEGIES: dict[str, dict[str, Any]] = {
    "fedavg": {},
    "fedprox": {"mu": 0.01},
    "fednova": {},
    "scaffold": {},
    "feddyn": {"mu": 0.01},
}


def write_model(path: Path) -> None:
    """Writes the network with its first weights; each strategy converts it with what it needs."""
    import keras

    from local_steps.keras_models import build

    keras.utils.set_random_seed(2017)
    model = build("2nn")
    model.compile(keras.optimizers.SGD(RATE), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.save(path)


def accuracies(model: Path, folder: Path, strategy: str, seed: int, rounds: int, workers: int) -> list[float]:
    """The accuracy on the test images after each round, in percent."""
    history = edgefl.simulate(
        model,
        "fashion-mnist",
        devices=DEVICES,
        partition="dirichlet:0.5",
        rounds=rounds,
        cohort=COHORT,
        batch_size=BATCH,
        seed=seed,
        strategy=strategy,
        evaluate_devices=0,
        workers=workers,
        out=folder / f"{strategy}-{seed}-{rounds}",
        resume=True,
        **STRATEGIES[strategy],
    )
    return [100 * each for each in history.metric("accuracy")]


def main() -> None:
    """Runs the strategies and prints the table; exits with 1 where one is too far below FedAvg."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="for what is computed")
    parser.add_argument("--strategies", default=";".join(STRATEGIES), help="which, divided by semicolons")
    parser.add_argument("--seeds", default="1,2,3", help="which (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=60, help="of each run (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=1, help="processes that train")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    arguments = parser.parse_args()
    folder, seeds = arguments.folder.resolve(), [int(each) for each in arguments.seeds.split(",")]
    folder.mkdir(parents=True, exist_ok=True)
    model = folder / "2nn.keras"
    if not model.exists():
        # TensorFlow stays in a process of its own.
        code = "import pathlib, sys, unlike_data; unlike_data.write_model(pathlib.Path(sys.argv[1]))"
        path = os.pathsep.join([str(Path(__file__).resolve().parent), os.environ.get("PYTHONPATH", "")])
        subprocess.run([sys.executable, "-c", code, model], check=True, env={**os.environ, "PYTHONPATH": path})
    table: dict[str, list[float]] = {}
    for strategy in map(str.strip, arguments.strategies.split(";")):
        runs = [accuracies(model, folder, strategy, seed, arguments.rounds, arguments.workers) for seed in seeds]
        ends = table[strategy] = [float(np.mean(each[-LAST:])) for each in runs]
        beside = float(np.mean(ends) - np.mean(table["fedavg"])) if "fedavg" in table else 0.0
        each = ", ".join(f"{end:.1f}" for end in ends)
        print(f"{strategy:10} {np.mean(ends):6.2f} %  {beside:+6.2f} points  ({each})", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(table, indent=2) + "\n")
    clean = np.mean(table.get("fedavg", [0.0]))
    if worse := [name for name, ends in table.items() if np.mean(ends) < clean - WITHIN]:
        sys.exit(f"More than {WITHIN:g} point below FedAvg: {', '.join(worse)}.")


if __name__ == "__main__":
    main()
