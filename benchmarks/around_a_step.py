"""What Python costs around the interpreter's own step, and what memory and start of a training process are.

    python benchmarks/around_a_step.py                                          # of the 2NN, batch 10
    python benchmarks/around_a_step.py model.tflite --runtime tflite-runtime

Steps of each kind take turns; the figures are medians of turns of the median step. A step of `fit` reads other rows of
the data each time, which the last batch's caches do not hold. "Python alone" is the same call with the interpreter's
taken out, its code and data in the processor's caches.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgefl_device_runtime.training import RUNTIMES, Callback, TrainableModel
from local_steps.running import prepare

TURNS, TURN_SECONDS, ROWS = 7, 0.2, 200


def made_up(model: TrainableModel, rows: int) -> tuple[Any, Any]:
    """Data of the shapes and types that the model takes."""
    random = np.random.default_rng(0)
    specs = {spec.name: spec for spec in model.manifest.signatures["train"].inputs}
    classes = {target.name: target.classes or 1 for target in model.manifest.targets}

    def array(name: str) -> Any:
        values = random.random((rows, *specs[name].shape[1:])) * classes.get(name, 1)
        return values.astype(specs[name].dtype)

    x, y = [array(name) for name in model.manifest.inputs], [array(name) for name in classes]
    return x[0] if len(x) == 1 else x, y[0] if len(y) == 1 else y


def first(data: Any, rows: int) -> Any:
    """The first rows of what `made_up` made."""
    return [each[:rows] for each in data] if isinstance(data, list) else data[:rows]


class Stopwatch(Callback):
    """Notes when `fit` begins, and when each of its steps ends."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Notes it."""
        self.ends.append(time.perf_counter())

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        """Notes it."""
        self.ends.append(time.perf_counter())


def one_by_one(step: Callable[[], Any]) -> list[float]:
    """Seconds of each call for a while."""
    times, end = [], time.perf_counter() + TURN_SECONDS
    while not times or time.perf_counter() < end:
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return times


def of_fit(model: TrainableModel, x: Any, y: Any) -> list[float]:
    """Seconds of each step of `fit` for a while."""
    watch = Stopwatch()
    model.fit(x, y, epochs=1_000_000, learning_rate=0.0, max_seconds=TURN_SECONDS, callbacks=[watch], verbose=0)
    return np.diff(watch.ends).tolist()


def measure(model: TrainableModel) -> dict[str, float]:
    """Microseconds of a step by what was timed."""
    size = model.manifest.batch_size
    x, y = made_up(model, ROWS * size)
    batch = first(x, size), first(y, size)
    train = model._sizes.of_rows(size).train
    kinds: dict[str, Callable[[], list[float]]] = {
        "the interpreter's call": lambda: one_by_one(train._run),
        "train_on_batch": lambda: one_by_one(lambda: model.train_on_batch(*batch, learning_rate=0.0)),
        "a step of fit": lambda: of_fit(model, x, y),
    }
    model.train_on_batch(*batch, learning_rate=0.0)  # feeds what the interpreter's call alone goes on with
    turns = [{name: 1e6 * statistics.median(take()) for name, take in kinds.items()} for _ in range(TURNS)]
    found = {name: statistics.median(each[name] for each in turns) for name in kinds}
    train._run = lambda: None
    for name in ("train_on_batch", "a step of fit"):
        found[f"{name}, Python alone"] = 1e6 * statistics.median(kinds[name]())
    return found


def main() -> None:
    """Prints one line for each figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, nargs="?", help="by default a 2NN with batches of 10")
    parser.add_argument("--runtime", choices=RUNTIMES, default=RUNTIMES[0])
    parser.add_argument("--json", type=Path, help="write the figures there")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.model
        if path is None:
            prepare("2nn", 10, Path(folder), peers=False)
            path = Path(folder, "model.tflite")
        begin = time.perf_counter()
        model = TrainableModel(path, runtime=arguments.runtime)
        x, y = made_up(model, model.manifest.batch_size)
        model.train_on_batch(x, y, learning_rate=0.0)
        seconds = time.perf_counter() - begin
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        megabytes = int(status["VmHWM"].split()[0]) / 1024
        found = measure(model)
    print(f"loading and one step: {seconds:.3f} s")
    print(f"peak memory after it: {megabytes:.1f} MB")
    for name, microseconds in found.items():
        print(f"{name}: {microseconds:.1f} µs")
    call = found["the interpreter's call"]
    print(f"a step of fit / the interpreter's call: {found['a step of fit'] / call:.2f}")
    print(f"train_on_batch / the interpreter's call: {found['train_on_batch'] / call:.2f}")
    if arguments.json:
        document = {"runtime": arguments.runtime, "seconds": seconds, "peak_mb": megabytes, "microseconds": found}
        arguments.json.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
