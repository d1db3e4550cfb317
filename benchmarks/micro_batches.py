"""What micro-batches save: memory of the training step of a batch of 32 rows, on both runtimes. Nothing is timed.

The arena of ``train`` is measured as `edgefl inspect` does; peak RSS is that of a process that takes four steps.

    python benchmarks/micro_batches.py --models fedavg_cnn --rows 32,8
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
from edgefl_device_runtime.measuring import measure
from local_steps.cases import CASES, save_batch

BATCH = 32
MODELS = ("fedavg_cnn", "smartwatch_1d_cnn", "transformer")
STEPS = """
import sys
import numpy as np
from edgefl_device_runtime.training import TrainableModel
model = TrainableModel(sys.argv[1], runtime=sys.argv[2])
x, y = (np.load(f"{sys.argv[3]}/{name}.npy") for name in "xy")
for _ in range(4):
    model.train_on_batch(x, y)
print(next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM:")))
"""


def measured(name: str, rows: int, folder: Path) -> list[dict[str, Any]]:
    """One row of the table for each runtime."""
    from local_steps.keras_models import build  # brings TensorFlow, which takes seconds

    file = folder / f"{name}-{rows}.tflite"
    result = edgefl.convert(build(name), file, batch_size=BATCH, micro_batch=rows, verify=False)
    table = []
    for runtime in measure(file, result.manifest):
        command = [sys.executable, "-c", STEPS, str(file), runtime.runtime, str(folder)]
        peak = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        table.append(
            {
                "model": name,
                "rows": rows,
                "runtime": runtime.runtime,
                "file_mb": file.stat().st_size / 1e6,
                "arena_mb": (runtime.arenas or {}).get("train", 0) / 1e6,
                "peak_rss_mb": peak * 1024 / 1e6,
            }
        )
    return table


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(MODELS), help="keys of local_steps.cases.CASES")
    parser.add_argument("--rows", default="32,16,8,4", help="rows of a micro-batch; 32 for none")
    parser.add_argument("--json", type=Path, help="write the figures there")
    given = parser.parse_args()
    names = given.models.split(",")
    if unknown := [name for name in names if name not in CASES]:
        parser.error(f"there is no model {', '.join(unknown)}; there are {', '.join(CASES)}")
    table: list[dict[str, Any]] = []
    print(f"{'model':20}{'rows at once':>13}  {'runtime':16}{'file MB':>9}{'arena MB':>10}{'peak RSS MB':>13}")
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            save_batch(CASES[name], BATCH, Path(folder))
            for rows in map(int, given.rows.split(",")):
                for row in measured(name, rows, Path(folder)):
                    table.append(row)
                    figures = f"{row['file_mb']:9.2f}{row['arena_mb']:10.1f}{row['peak_rss_mb']:13.1f}"
                    print(f"{name:20}{rows:13}  {row['runtime']:16}{figures}", flush=True)
    if given.json:
        given.json.write_text(json.dumps({"batch": BATCH, "rows": table}, indent=2) + "\n")


if __name__ == "__main__":
    main()
