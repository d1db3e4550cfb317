"""The course of the example: what `run.py` runs.

The same run twice, on the same five devices: once undisturbed, once while devices are killed and started again at
random moments. Both must end with the same weights, to the last bit.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgefl import TrainableModel
from edgefl.atomic import write_text
from edgefl.errors import EdgeflError
from edgefl.hashing import weights_hash
from examples.fashion_mnist.images import DEBIAN_FOLDER, Examples, load, partition_by_dirichlet
from examples.fashion_mnist.misfortune import Misfortune
from examples.fleet import DeviceProcess, Fleet, edgefl, stop_on_signals
from examples.loading import load_model

POPULATION = "wardrobes"
DEVICES = 5
ROWS = 480
"""Training images on each device: 15 batches."""
TEST_ROWS = 1000
ALPHA = 0.5
"""Of the Dirichlet distribution: most devices have hardly seen half of the classes."""
ROUNDS = 10
EPOCHS = 1
SEED = 1

_END_SECONDS = 120

Say = Callable[[str], None]
Vector = NDArray[np.float32]


@dataclass(frozen=True)
class Result:
    """What a run of the example has measured; accuracies are on the same test images, from 0 to 1."""

    initial_accuracy: float
    alone_accuracy_mean: float
    federated_accuracy: float
    same_weights: bool
    weights_hash: str
    rounds: int
    devices: int
    kills: int
    outcomes_folded: int
    outcomes_discarded: int
    device_peak_rss_mb: float
    seconds: float


def run(out: Path, *, data: Path = DEBIAN_FOLDER, rounds: int = ROUNDS, say: Say = print) -> Result:
    """Runs the example.

    Args:
        out: folder for the results; what an earlier run has left there is replaced.
        data: folder with the files of Fashion-MNIST.
        rounds: of each of the two runs.
        say: told one line at a time how it goes.

    Raises:
        EdgeflError: a process failed, or the data are not there.
    """
    started = time.monotonic()
    out = out.resolve()
    _clear(out)
    images, labels = load(data, "train")
    parts = [(images[rows], labels[rows]) for rows in partition_by_dirichlet(labels, DEVICES, ROWS, ALPHA, SEED)]
    test = tuple(array[:TEST_ROWS] for array in load(data, "t10k"))
    for index, (_, own) in enumerate(parts, 1):
        say(f"device {index} holds {len(own)} images, by class: {' '.join(map(str, np.bincount(own, minlength=10)))}")

    model = out / "model.tflite"
    edgefl("convert", "examples.fashion_mnist.model:build", "-o", model, on_progress=say)
    trainable = load_model(model)

    def accuracy(weights: Vector) -> float:
        trainable.weights = weights
        return trainable.evaluate(*test)["accuracy"]

    initial = trainable.weights
    with Fleet(out / "fleet") as fleet:
        say(f"server at {fleet.start_server()}")
        invitation = fleet.operate("server", "invite", "--population", POPULATION)["invitation"]
        for index, examples in enumerate(parts, 1):
            x, y = examples
            np.savez(fleet.add_device(f"device-{index}").folder / "data.npz", x=x, y=y)

        def start(device: DeviceProcess) -> None:
            device.start(device.folder / "data.npz", invitation)

        say("undisturbed:")
        calm, _ = _train(fleet, model, rounds, start, None, say)
        say("with devices killed at random moments:")
        misfortune = Misfortune(fleet.devices, start, SEED)
        disturbed, status = _train(fleet, model, rounds, start, misfortune, say)
        peak = max(device.peak_rss_mb for device in fleet.devices)

    say("each device alone, as many passes over its own images:")
    alone = [_train_alone(trainable, initial, part, rounds * EPOCHS, accuracy) for part in parts]
    say("  " + ", ".join(f"{each:.1%}" for each in alone))
    outcomes = [entry["outcomes"] for entry in status["history"]]
    result = Result(
        initial_accuracy=accuracy(initial),
        alone_accuracy_mean=float(np.mean(alone)),
        federated_accuracy=accuracy(disturbed),
        same_weights=weights_hash(calm) == weights_hash(disturbed),
        weights_hash=weights_hash(disturbed),
        rounds=rounds,
        devices=len(parts),
        kills=misfortune.kills,
        outcomes_folded=sum(each["folded"] for each in outcomes),
        outcomes_discarded=sum(each["discarded"] + each["failed"] + each["declined"] for each in outcomes),
        device_peak_rss_mb=peak,
        seconds=round(time.monotonic() - started, 1),
    )
    write_text(out / "summary.json", json.dumps(asdict(result), indent=2) + "\n")
    return result


def _train(
    fleet: Fleet,
    model: Path,
    rounds: int,
    start: Callable[[DeviceProcess], None],
    misfortune: Misfortune | None,
    say: Say,
) -> tuple[Vector, dict[str, Any]]:
    """One run with all devices.

    Returns:
        The final weights, and the run's status.
    """
    run_id = fleet.operate(
        "run", "create", model, "--population", POPULATION, "--rounds", str(rounds), "--epochs", str(EPOCHS),
        "--target", str(len(fleet.devices)), "--seed", str(SEED),
    )["run"]  # fmt: skip
    for device in fleet.devices:
        start(device)
    final = np.empty(0, np.float32)
    for entry, weights in fleet.rounds(run_id, misfortune):
        killed = f", {misfortune.kills} kills so far" if misfortune else ""
        say(
            f"  round {entry['round']:2}/{rounds}: {entry['outcomes']['folded']} updates merged, "
            f"loss on the devices {entry['loss']:.2f}{killed}"
        )
        if misfortune:
            misfortune.next_round(entry["seconds"])
        final = weights
    for device in fleet.devices:
        device.result(_END_SECONDS)
    return final, fleet.operate("run", "status", run_id)


def _train_alone(
    trainable: TrainableModel,
    initial: Vector,
    examples: Examples,
    epochs: int,
    accuracy: Callable[[Vector], float],
) -> float:
    trainable.weights = initial
    trainable.reset_optimizer()
    trainable.fit(*examples, epochs=epochs, seed=SEED)
    return accuracy(trainable.weights)


def _clear(out: Path) -> None:
    """Removes what an earlier run has left, and nothing else."""
    out.mkdir(parents=True, exist_ok=True)
    if (out / "fleet").exists():
        shutil.rmtree(out / "fleet")
    for name in ("model.tflite", "model.tflite.report.json", "summary.json"):
        (out / name).unlink(missing_ok=True)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="The FedAvg paper's CNN on devices that keep being killed.")
    parser.add_argument("--out", type=Path, default=Path("demo/fashion_mnist"), help="folder for the results")
    parser.add_argument("--data", type=Path, default=DEBIAN_FOLDER, help="folder with the files of Fashion-MNIST")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="rounds of federated averaging")
    arguments = parser.parse_args()

    def say(line: str) -> None:
        print(line, flush=True)

    try:
        with stop_on_signals():
            result = run(arguments.out, data=arguments.data, rounds=arguments.rounds, say=say)
    except EdgeflError as error:
        print(f"fashion_mnist: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("fashion_mnist: stopped, and all its processes with it", file=sys.stderr)
        sys.exit(130)
    say(json.dumps(asdict(result), indent=2))
