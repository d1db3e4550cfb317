"""What a file of several batch sizes costs and gains beside one of the largest: bytes, memory, and steps of fewer rows.

A batch of fewer rows than the file's is padded, and costs what the file's size costs; a size of its own costs its rows.
Steps are timed in turns, see interleaving.py; peak RSS is that of a process that took a step of each size.

    python benchmarks/batch_sizes.py --models 2nn,smartwatch_1d_cnn --sizes 1,8,32
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import edgefl
from edgefl.targets import RUNTIMES
from edgefl_device_runtime.training.interpreter import runtime_version
from interleaving import measure
from local_steps.cases import CASES, save_batch

MODELS = ("2nn", "smartwatch_1d_cnn", "fedavg_cnn")
ONE, SEVERAL = "padded", "own"
"""The file of the largest size, to which fewer rows are padded, and the one that has a size for them."""
STEPS = """
import sys
import numpy as np
from edgefl_device_runtime.training import TrainableModel
from serving import serve

def make_step():
    file, runtime, folder, *sizes = sys.argv[1:]
    model = TrainableModel(file, runtime=runtime)
    x, y = (np.load(f"{folder}/{name}.npy") for name in "xy")
    for size in map(int, sizes):
        model.train_on_batch(x[:size], y[:size])
    return lambda: model.train_on_batch(x[:size], y[:size])

serve(make_step)
"""


def measured(name: str, sizes: list[int], folder: Path, *, slices: int, seconds: float) -> list[dict[str, Any]]:
    """One row of the table for each runtime and each number of rows."""
    from local_steps.keras_models import build  # brings TensorFlow, which takes seconds

    largest, files = max(sizes), {}
    for kind, chosen in ((ONE, largest), (SEVERAL, tuple(sorted(sizes, reverse=True)))):
        files[kind] = folder / f"{name}-{kind}.tflite"
        edgefl.convert(build(name), files[kind], batch_size=chosen, verify=False)
    save_batch(CASES[name], largest, folder)
    table = []
    for runtime in (each for each in RUNTIMES if runtime_version(each)):

        def command(kind: str, *rows: int, runtime: str = runtime) -> list[str]:
            return [sys.executable, "-c", STEPS, str(files[kind]), runtime, str(folder), *map(str, rows)]

        peaks = {kind: _peak(command(kind, *sizes)) for kind in files}
        steps = {f"{kind} {rows}": command(kind, rows) for rows in sizes for kind in files}
        timings = measure(steps, slices=slices, seconds=seconds, cwd=Path(__file__).parent)
        table += [
            {
                "model": name,
                "runtime": runtime,
                "rows": rows,
                **{f"{kind}_ms": timings[f"{kind} {rows}"].step_ms for kind in files},
                **{f"{kind}_file_kb": file.stat().st_size / 1e3 for kind, file in files.items()},
                **{f"{kind}_peak_rss_mb": peak for kind, peak in peaks.items()},
            }
            for rows in sorted(sizes, reverse=True)
        ]
    return table


def _peak(command: list[str]) -> float:
    """Peak RSS in MB of a process that takes its first steps and ends."""
    folder = Path(__file__).parent
    done = subprocess.run(command, input="", check=True, capture_output=True, text=True, cwd=folder)
    return float(json.loads(done.stdout.splitlines()[0])["peak_rss_mb"])


def numbers(text: str) -> list[int]:
    """At least two different whole numbers of at least 1."""
    found = [int(part) for part in text.split(",")]
    if min(found) < 1 or len(set(found)) < max(2, len(found)):
        raise ValueError
    return found


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(MODELS), help="keys of local_steps.cases.CASES")
    parser.add_argument("--sizes", type=numbers, default=[1, 8, 32], help="batch sizes of the file that has several")
    parser.add_argument("--quick", action="store_true", help="short turns")
    parser.add_argument("--json", type=Path, help="write the figures there")
    given = parser.parse_args()
    names = given.models.split(",")
    if unknown := [name for name in names if name not in CASES]:
        parser.error(f"there is no model {', '.join(unknown)}; there are {', '.join(CASES)}")
    turns = {"slices": 3, "seconds": 0.1} if given.quick else {"slices": 7, "seconds": 0.5}
    table: list[dict[str, Any]] = []
    largest = max(given.sizes)
    print(
        f"Files of {largest} rows (padded) and of {', '.join(map(str, sorted(given.sizes)))} (own); kB, ms a step, MB."
    )
    head = f"{'padded kB':>11}{'own kB':>9}{'padded ms':>11}{'own ms':>9}{'padded MB':>11}{'own MB':>9}"
    print(f"{'model':20}{'runtime':16}{'rows':>5}{head}")
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            for row in measured(name, given.sizes, Path(folder), **turns):
                table.append(row)
                figures = f"{row['padded_file_kb']:11.0f}{row['own_file_kb']:9.0f}"
                figures += f"{row['padded_ms']:11.3f}{row['own_ms']:9.3f}"
                figures += f"{row['padded_peak_rss_mb']:11.1f}{row['own_peak_rss_mb']:9.1f}"
                print(f"{name:20}{row['runtime']:16}{row['rows']:5}{figures}", flush=True)
    if given.json:
        given.json.write_text(json.dumps({"sizes": given.sizes, "rows": table}, indent=2) + "\n")


if __name__ == "__main__":
    main()
