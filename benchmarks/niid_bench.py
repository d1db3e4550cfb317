"""Federated averaging beside Flower's niid_bench on Fashion-MNIST: how good the model is after 50 rounds.

Flower's baseline repeats Li et al. 2022, "Federated Learning on Non-IID Data Silos": 10 devices, all of them each
round, a convolutional network of two layers with 6 and 16 filters, batches of 64, SGD with a rate of 0.01, a momentum
of 0.9 and a weight decay of 1e-5. It says the best accuracy of all rounds on the test images, as a mean of several
seeds, with E = 10 epochs. Here E is 1, so that two free cores are done in half an hour, and beside what Flower
published stands Flower's own simulation with PyTorch (``make bench-peers``): the same rows on the same devices, the
same first weights and the same E. With several seeds (of who holds what, and of the order of rows) it says the mean and
the standard deviation. What was computed is kept in the folder, so that a run that was broken off goes on.

    python benchmarks/niid_bench.py --folder bench/niid_bench
    python benchmarks/niid_bench.py --folder bench/niid_bench --cases IID --epochs 10
    python benchmarks/niid_bench.py --folder bench/niid_bench --cases "2 classes each" --seeds 42,43,44
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple

import numpy as np

import edgefl
from edgefl_simulation.data import fashion_mnist
from edgefl_simulation.partitioning import Rows, partition
from fleets.contenders import CONTENDERS

DEVICES, ROUNDS, BATCH, EPOCHS, SEED = 10, 50, 64, 1, 42
LEARNING_RATE, MOMENTUM, WEIGHT_DECAY = 0.01, 0.9, 1e-5
FLOWER = CONTENDERS["Flower, PyTorch"]


class Case(NamedTuple):
    """One row of the table.

    Attributes:
        partition: as `edgefl.simulate` takes it.
        published: Flower's best accuracy of all rounds in percent with E = 10, and its standard deviation over seeds.
    """

    partition: str
    published: tuple[float, float]


CASES = {
    "IID": Case("iid", (89.23, 0.45)),
    "Dirichlet (0.5)": Case("dirichlet:0.5", (88.09, 0.29)),
    "2 classes each": Case("pathological:2", (78.10, 2.51)),
    "3 classes each": Case("pathological:3", (82.43, 1.52)),
}


def write_model(folder: Path) -> None:
    """Writes the network as edgefl trains it, and its first weights."""
    import keras

    keras.utils.set_random_seed(SEED)
    layers = keras.layers
    decay = {"kernel_regularizer": keras.regularizers.L2(WEIGHT_DECAY / 2)}
    decay["bias_regularizer"] = keras.regularizers.L2(WEIGHT_DECAY / 2)
    stack: list[Any] = [keras.Input((28, 28, 1))]
    for filters in (6, 16):
        stack += [layers.Conv2D(filters, 5, activation="relu", **decay), layers.MaxPooling2D()]
    stack += [layers.Flatten(), layers.Dense(120, "relu", **decay), layers.Dense(84, "relu", **decay)]
    model = keras.Sequential([*stack, layers.Dense(10, "softmax", **decay)])
    optimizer = keras.optimizers.SGD(LEARNING_RATE, MOMENTUM)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    np.savez(folder / "weights.npz", *model.get_weights())
    edgefl.convert(model, folder / "model.tflite", batch_size=BATCH, verify=False)


def write_data(case: Case, folder: Path, seed: int) -> None:
    """Writes all images with the device of each."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = fashion_mnist.load()
    x, y = whole.arrays["x"], whole.arrays["y"]
    names, parts = partition(Rows(len(y), y), case.partition, DEVICES, seed)
    order = np.concatenate(parts)
    owners = np.repeat(np.asarray(names), [len(part) for part in parts])
    arrays = {"x": x[order], "y": y[order], "id": owners}
    arrays |= {"test_x": whole.held_out["x"], "test_y": whole.held_out["y"]}
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)


def own_accuracies(folder: Path, data: Path, epochs: int, workers: int, seed: int) -> list[float]:
    """What edgefl's model recognises of the test images after each round."""
    history = edgefl.simulate(
        folder / "model.tflite",
        data,
        partition="natural-id",
        rounds=ROUNDS,
        cohort=DEVICES,
        epochs=epochs,
        seed=seed,
        evaluate_devices=0,
        workers=workers,
        out=data.with_name(f"edgefl-{epochs}"),
        resume=True,
    )
    return history.metric("accuracy")


def flower_accuracies(folder: Path, data: Path, epochs: int, workers: int, seed: int) -> list[float]:
    """The same of Flower's."""
    kept = data.with_name(f"flower-{epochs}.json")
    if not kept.exists():
        job = {"folder": str(folder), "data": str(data), "rounds": ROUNDS, "devices": DEVICES, "batch": BATCH}
        job |= {"rate": LEARNING_RATE, "momentum": MOMENTUM, "decay": WEIGHT_DECAY}
        job |= {"epochs": epochs, "workers": workers, "seed": seed}
        here = Path(__file__).resolve().parent
        done = subprocess.run(
            [FLOWER.python, here / "fleets" / "flower_niid.py"],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(here), "EDGEFL_NIID_JOB": json.dumps(job)},
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"Flower failed:\n{done.stderr[-4000:]}")
        kept.write_text(
            json.dumps([float(line.split()[1]) for line in done.stdout.splitlines() if "accuracy " in line])
        )
    found: list[float] = json.loads(kept.read_text())
    return found


def written(best: list[float]) -> str:
    """The mean of several seeds in percent, and their standard deviation."""
    return f"{100 * mean(best):.1f}" + (f" ± {100 * stdev(best):.1f}" if best[1:] else "")


def main() -> None:
    """Runs the cases and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="for what is computed")
    parser.add_argument("--cases", default=";".join(CASES), help="which, divided by semicolons (default: all)")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="E (default: %(default)s; Flower: 10)")
    parser.add_argument("--seeds", default=str(SEED), help="which, divided by commas (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="processes that train")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "model.tflite").exists():
        # TensorFlow stays in a process of its own.
        code = "import pathlib, sys, niid_bench; niid_bench.write_model(pathlib.Path(sys.argv[1]))"
        path = os.pathsep.join([str(Path(__file__).resolve().parent), os.environ.get("PYTHONPATH", "")])
        subprocess.run([sys.executable, "-c", code, folder], check=True, env={**os.environ, "PYTHONPATH": path})
    contenders = {"edgefl": own_accuracies}
    if FLOWER.is_there:
        contenders["Flower"] = flower_accuracies
    else:
        print("Flower is not there. `make bench-peers` installs it.")
    table: dict[str, Any] = {}
    for name in map(str.strip, arguments.cases.split(";")):
        case = CASES[name]
        best: dict[str, list[float]] = {who: [] for who in contenders}
        for seed in map(int, arguments.seeds.split(",")):
            data = folder / f"{case.partition.replace(':', '-')}-{seed}" / "data"
            if not (data / "test_y.npy").exists():
                write_data(case, data, seed)
            for who, run in contenders.items():
                best[who].append(max(run(folder, data, arguments.epochs, arguments.workers, seed)))
                print(f"  seed {seed}: {who} {best[who][-1]:.2%}", flush=True)
        table[name] = {"epochs": arguments.epochs, "published": case.published, **best}
        cells = "".join(f"  {who} {written(found)} %" for who, found in best.items())
        print(f"{name:16} E = {arguments.epochs}{cells}  published, E = 10: {case.published[0]} %", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(table, indent=2) + "\n")


if __name__ == "__main__":
    main()
