"""What a fleet costs by its size: a round and memory with 1,000 and with 100,000 registered devices.

    python -m fleets.scale DEVICES MODEL DATA ROUNDS

simulates one fleet and prints its figures; `compare` runs it for both sizes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["MOST", "compare"]

COHORT, ROWS, SIZES, MOST = 100, 4, (1_000, 100_000), 1.2
_MODEL = """
import sys, edgefl
from examples.digits.model import build
edgefl.convert(build(), sys.argv[1], batch_size=10, verify=False)
"""


def compare(folder: Path, rounds: int = 30) -> dict[str, Any]:
    """Simulates fleets of both sizes, in processes of their own.

    Args:
        folder: for the files.
        rounds: of each; the first one is not timed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model = folder / "digits.tflite"
    if not model.exists():
        subprocess.run([sys.executable, "-c", _MODEL, model], check=True, capture_output=True)
    found = {}
    for devices in SIZES:
        command = [sys.executable, "-m", "fleets.scale", *map(str, (devices, model, folder / str(devices), rounds))]
        path = os.pathsep.join([str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")])
        done = subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}, check=False
        )
        if done.returncode:
            raise SystemExit(f"{devices} devices failed:\n{done.stderr[-4000:]}")
        found[devices] = json.loads(done.stdout.splitlines()[-1])
    few, many = (found[size] for size in SIZES)
    ratios = {name: many[name] / few[name] for name in ("ms_a_round", "cpu_ms_a_round", "training_pss_mb")}
    return {"sizes": found, "ratios": ratios}


def _write_data(folder: Path, devices: int) -> None:
    """Real digits, as often as it takes: 4 rows for each device, and 500 that none has."""
    from edgefl_simulation.data import load_data

    arrays = load_data("digits", "id").arrays
    digits = {"x": arrays["x"].reshape(-1, 64), "y": arrays["y"]}
    count = len(digits["y"])
    rows = np.arange(ROWS * devices) % (count - 500)
    folder.mkdir()
    for name, array in digits.items():
        np.save(folder / f"{name}.npy", array[rows])
        np.save(folder / f"test_{name}.npy", array[-500:])


def _simulate(devices: int, model: str, folder: Path, rounds: int) -> None:
    import edgefl
    from fleets.job import watched

    if not folder.exists():
        _write_data(folder, devices)
    with watched() as watch:
        edgefl.simulate(
            model,
            folder,
            devices=devices,
            partition="iid",
            rounds=rounds,
            cohort=COHORT,
            workers=2,
            evaluate_every=rounds,
            evaluate_devices=0,
            on_round=lambda row: watch.round(COHORT),
        )
    figures = watch.figures()
    a_round = {
        "ms_a_round": 1000 * COHORT / figures["devices_per_second"],
        "cpu_ms_a_round": COHORT * figures["cpu_ms_a_device"],
    }
    kept = {name: figures[name] for name in ("training_pss_mb", "peak_pss_mb")}
    print(json.dumps({**a_round, **kept}))


if __name__ == "__main__":
    _simulate(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
