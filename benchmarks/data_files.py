"""What it costs to train on data that stays in a file: the same rows as .npz, as .npy, and in memory, in turn.

    python benchmarks/data_files.py                    # 600 MB of rows of 784 floats, 40 MB of rows of 6
    python benchmarks/data_files.py --megabytes 60

Each turn is a process of its own, which does one task of a device without the network: it opens the file as `edgefl
device run --data` does, checks it and trains one epoch. Limits: the .npz takes at most 1.3 times as long as the .npy,
and 600 MB of rows of 784 floats need at most 120 MB of memory.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

TURNS, BATCH, CLASSES = 3, 32, 10
LARGEST_RATIO, LARGEST_PEAK_MB = 1.3, 120.0
ROWS_OF = {784: 600, 6: 40}
"""Numbers of a row, and megabytes of them."""
FORMS = ("in memory", ".npy", ".npz")


def write_data(folder: Path, width: int, megabytes: float, classes: int = CLASSES) -> int:
    """Writes the same rows as FOLDER/npy/ and FOLDER/data.npz, without holding them; returns how many."""
    rows = int(megabytes * 1e6 / (4 * width))
    random = np.random.default_rng(0)
    (folder / "npy").mkdir()
    x = np.lib.format.open_memmap(folder / "npy" / "x.npy", "w+", np.float32, (rows, width))
    for start in range(0, rows, 1 << 15):
        x[start : start + (1 << 15)] = random.random(x[start : start + (1 << 15)].shape, np.float32)
    y = random.integers(0, classes, rows)
    np.save(folder / "npy" / "y.npy", y)
    np.savez(folder / "data.npz", x=x, y=y)
    return rows


def write_model(folder: Path, width: int) -> None:
    """The 2NN for rows of 784 numbers, a small dense network for others."""
    program = f"""
import sys, keras, edgefl
from keras import layers
hidden = [200, 200] if {width} == 784 else [16]
model = keras.Sequential([keras.Input(({width},)), *(layers.Dense(each, "relu") for each in hidden)])
model.add(layers.Dense({CLASSES}, "softmax"))
model.compile(keras.optimizers.SGD(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
edgefl.convert(model, sys.argv[1], batch_size={BATCH}, verify=False)
"""
    done = subprocess.run([sys.executable, "-c", program, folder / "model.tflite"], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-4000:])


def one_task(model_file: Path, data: Path, runtime: str, in_memory: bool, max_steps: int | None) -> dict[str, float]:
    """Seconds of checking and training, and the peak of this process's memory."""
    from edgefl_device_runtime.agent.sources import open_source
    from edgefl_device_runtime.tasks import arrange
    from edgefl_device_runtime.training import TrainableModel

    model = TrainableModel(model_file, runtime=runtime)
    arrays = open_source(data)()
    if in_memory:
        arrays = {name: np.array(array) for name, array in arrays.items()}
    examples = arrange(arrays, model.manifest)
    model.fit(examples.x, examples.y, max_steps=1)
    begin, used = time.perf_counter(), time.process_time()
    history = model.fit(examples.x, examples.y, max_steps=max_steps)
    seconds, used = time.perf_counter() - begin, time.process_time() - used
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {
        "seconds": seconds,
        "microseconds_a_step": 1e6 * seconds / history.steps,
        "cpu_microseconds_a_step": 1e6 * used / history.steps,
        "peak_mb": int(status["VmHWM"].split()[0]) * 1024 / 1e6,
        "loss": history.history["loss"][-1],
    }


def in_a_process(folder: Path, form: str, runtime: str, max_steps: int | None = None) -> dict[str, float]:
    """`one_task` in a process of its own."""
    data = folder / ("data.npz" if form == ".npz" else "npy")
    command = [sys.executable, __file__, "--task", str(folder / "model.tflite"), str(data), runtime]
    command += [str(int(form == "in memory")), str(max_steps or 0)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-4000:])
    found: dict[str, float] = json.loads(done.stdout)
    return found


def measure(folder: Path, runtime: str, turns: int = TURNS, max_steps: int | None = None) -> list[dict[str, Any]]:
    """A row of the table for each form, measured in turn; the fastest turn counts, and the largest peak."""
    found: dict[str, list[dict[str, float]]] = {form: [] for form in FORMS}
    for _ in range(turns):
        for form in FORMS:
            found[form].append(in_a_process(folder, form, runtime, max_steps))
    losses = {each["loss"] for rows in found.values() for each in rows}
    if len(losses) != 1:
        raise SystemExit(f"Expected the same loss of every form, got {losses}.")
    # Of the processor's time: what else the machine does meanwhile is no cost of a file's form.
    name = "cpu_microseconds_a_step"
    ratios = [b[name] / a[name] for a, b in zip(found[".npy"], found[".npz"], strict=True)]
    return [
        {
            "form": form,
            "seconds": min(each["seconds"] for each in found[form]),
            "microseconds_a_step": min(each["microseconds_a_step"] for each in found[form]),
            name: min(each[name] for each in found[form]),
            "peak_mb": max(each["peak_mb"] for each in found[form]),
            "npz_over_npy": statistics.median(ratios),
        }
        for form in FORMS
    ]


def main() -> None:
    """Prints the table; exit code 1 where a limit is passed."""
    if sys.argv[1:2] == ["--task"]:
        model, data, runtime, in_memory, steps = sys.argv[2:]
        print(json.dumps(one_task(Path(model), Path(data), runtime, bool(int(in_memory)), int(steps) or None)))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, help="of each data set")
    parser.add_argument("--runtime", default="auto")
    parser.add_argument("--turns", type=int, default=TURNS)
    parser.add_argument("--json", type=Path, help="write the figures there")
    arguments = parser.parse_args()
    table, passed = [], False
    for width, megabytes in ROWS_OF.items():
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            rows = write_data(folder, width, arguments.megabytes or megabytes)
            write_model(folder, width)
            for row in measure(folder, arguments.runtime, arguments.turns):
                table.append({"width": width, "rows": rows, **row})
                print(
                    f"{rows} rows of {width}, {row['form']}: {row['seconds']:.2f} s, "
                    f"{row['microseconds_a_step']:.1f} µs a step, peak {row['peak_mb']:.0f} MB"
                )
        ratio = table[-1]["npz_over_npy"]
        print(f".npz / .npy: {ratio:.2f} (limit {LARGEST_RATIO})")
        passed |= ratio > LARGEST_RATIO or (width == 784 and table[-1]["peak_mb"] > LARGEST_PEAK_MB)
    if arguments.json:
        arguments.json.write_text(json.dumps(table, indent=2) + "\n")
    if passed:
        raise SystemExit("A limit is passed.")


if __name__ == "__main__":
    main()
