"""A fleet on one machine: devices trained per second and memory, beside the loop that one writes first.

McMahan's 2NN on Fashion-MNIST: 100 devices of 600 images (IID), 10 a round, one epoch of batches of 10, the same rows
on the same devices. Contenders take turns, each in a process of its own; the first round of each is not timed. Memory
is the PSS of all processes together, while they train and at its peak. On a busy machine the processor's time for a
device says more than the devices a second.

    python benchmarks/simulation.py --json bench/simulation.json
    python benchmarks/simulation.py --quick
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from edgefl_simulation.data import fashion_mnist
from fleets.job import Job

HERE = Path(__file__).parent
CONTENDERS = {"edgefl": "edgefl_simulation_alone.py", "naive loop": "naive_loop.py"}
DEVICES, COHORT, BATCH = 100, 10, 10
MOST_PSS_MB = 200
"""What the whole tree of edgefl's simulation may take."""

MODEL = """
import sys
import keras
import edgefl
keras.utils.set_random_seed(2017)
layers = [keras.Input((784,)), *(keras.layers.Dense(200, "relu") for _ in range(2)), keras.layers.Dense(10, "softmax")]
model = keras.Sequential(layers)
model.compile(keras.optimizers.SGD(0.05), "sparse_categorical_crossentropy", metrics=["accuracy"])
edgefl.convert(model, sys.argv[1], batch_size=int(sys.argv[2]), verify=False)
"""


def prepare(folder: Path) -> tuple[Path, Path]:
    """The model file, and the data with the device of each row."""
    model, data = folder / "2nn.tflite", folder / "data"
    # TensorFlow stays in a process of its own.
    subprocess.run([sys.executable, "-c", MODEL, model, str(BATCH)], check=True, capture_output=True)
    whole = fashion_mnist.load()
    x, y = (whole.arrays["x"].reshape(-1, 784), whole.arrays["y"])
    order = np.random.default_rng(1).permutation(len(x))
    owners = np.array([f"device-{number * DEVICES // len(x):03d}" for number in range(len(x))])
    test = whole.held_out["x"].reshape(-1, 784), whole.held_out["y"]
    data.mkdir()
    for name, array in {"x": x[order], "y": y[order], "id": owners, "test_x": test[0], "test_y": test[1]}.items():
        np.save(data / f"{name}.npy", array)
    return model, data


def run(contender: str, job: Job) -> dict[str, Any]:
    """One turn of a contender."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(
        [sys.executable, HERE / "fleets" / CONTENDERS[contender]],
        input=json.dumps(asdict(job)),
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{contender} failed:\n{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Runs the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--rounds", type=int, default=42, help="of each turn")
    parser.add_argument("--turns", type=int, default=5, help="of each contender")
    parser.add_argument("--workers", type=int, default=2, help="processes that train")
    parser.add_argument("--quick", action="store_true", help="one short turn")
    arguments = parser.parse_args()
    rounds, turns = (7, 1) if arguments.quick else (arguments.rounds, arguments.turns)
    load = os.getloadavg()[0]
    if load > 0.5:
        print(f"This machine is busy (load {load:.1f}): only the ratio means something.")
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in CONTENDERS}
    with tempfile.TemporaryDirectory() as folder:
        model, data = prepare(Path(folder))
        job = Job(str(model), str(data), rounds, COHORT, arguments.workers, 1)
        for _ in range(turns):
            for name, found in rows.items():
                found.append(run(name, job))
    table = {
        name: {column: statistics.median(row[column] for row in found) for column in found[0]}
        for name, found in rows.items()
    }
    print(f"{'':12}{'devices/s':>12}{'CPU ms each':>13}{'PSS MB':>8}{'peak':>6}{'accuracy':>10}")
    for name, row in table.items():
        print(
            f"{name:12}{row['devices_per_second']:12.1f}{row['cpu_ms_a_device']:13.2f}{row['training_pss_mb']:8.0f}"
            f"{row['peak_pss_mb']:6.0f}{row['accuracy']:10.3f}"
        )
    ours, naive = table["edgefl"], table["naive loop"]
    ratio = ours["devices_per_second"] / naive["devices_per_second"]
    cpu = naive["cpu_ms_a_device"] / ours["cpu_ms_a_device"]
    print(
        f"edgefl trains {ratio:.2f} × as many devices a second, {cpu:.2f} × as many in the same processor time, in "
        f"{ours['training_pss_mb']:.0f} of {MOST_PSS_MB} MB"
    )
    if arguments.json:
        document = {"load_before": load, "rounds": rounds, "table": table, "turns": rows, "ratio": ratio}
        arguments.json.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
