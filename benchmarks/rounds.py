"""What a round costs beyond training: real devices and a real server, all processes of this machine.

    python benchmarks/rounds.py                   # 4 devices, 40 rounds
    python benchmarks/rounds.py --devices 8 --rounds 20

Each device makes one step of a small model, so that training takes about nothing; how long is measured in this
process, with the same model, rows and code, and taken off. What is left is handing out, downloading, uploading,
accepting, folding, and five programs that share this machine's cores. The limit: 0.1 s a round with four devices.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil

from edgefl_device_runtime.training import TrainableModel

_ROOT = Path(__file__).parents[1]
sys.path += [str(_ROOT), str(_ROOT / "tests" / "golden")]
from examples.fleet import Fleet
from golden_set import array

MODEL = _ROOT / "tests" / "golden" / "dropout.tflite"
LIMIT = 0.1
WARM_ROUNDS = 5
"""Devices start, enrol and load the model during the first ones, which are not counted."""
_LEARNING_RATE = 0.001


def training_seconds() -> float:
    """One step from given weights to a delta, as a device that has the model loaded makes it; the median of 50."""
    model, x, y = TrainableModel(MODEL), array("x"), array("y")
    times = []
    for _ in range(50):
        begin = time.perf_counter()
        model.fit(x, y, epochs=1, max_steps=1, learning_rate=_LEARNING_RATE, seed=1)
        times.append(time.perf_counter() - begin)
    return float(np.median(times))


def measure(folder: Path, devices: int, rounds: int) -> dict[str, float]:
    """Seconds a round and what the server's process used for each, after the warm rounds."""
    data = folder / "data.npz"
    np.savez(data, x=array("x"), y=array("y"))
    with Fleet(folder / "fleet") as fleet:
        fleet.start_server()
        invitation = fleet.operate("server", "invite", "--population", "bench")["invitation"]
        options = ("--population", "bench", "--target", str(devices), "--max-steps", "1", "--seed", "1")
        options += ("--learning-rate", str(_LEARNING_RATE))
        run = fleet.operate("run", "create", MODEL, *options, "--rounds", str(WARM_ROUNDS + rounds))["run"]
        for number in range(devices):
            fleet.add_device(f"device-{number}").start(data, invitation)
        server, opened, used = psutil.Process(fleet.server_pid), [], []
        for entry, _ in fleet.rounds(run):
            opened.append(entry["opened_at"])
            cpu = server.cpu_times()
            used.append((cpu.user + cpu.system, entry["round"]))
        for device in fleet.devices:
            device.result(60)
    steps = np.diff(np.array(opened[WARM_ROUNDS:]))
    (first, first_round), (last, last_round) = used[0], used[-1]
    return {
        "devices": devices,
        "seconds_a_round": float(np.median(steps)),
        "p90_seconds": float(np.quantile(steps, 0.9)),
        "server_cpu_ms": (last - first) / max(1, last_round - first_round) * 1e3,
    }


def main() -> None:
    """Prints the figures; exit code 1 where the limit is passed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--json", type=Path, help="write the figures there")
    arguments = parser.parse_args()
    training = training_seconds()
    with tempfile.TemporaryDirectory() as name:
        figures = measure(Path(name), arguments.devices, arguments.rounds)
    beyond = figures["seconds_a_round"] - training
    figures |= {"training_seconds": training, "beyond_seconds": beyond, "ratio": beyond / LIMIT}
    print(
        f"{arguments.devices} devices: {figures['seconds_a_round']:.3f} s a round (90 %: {figures['p90_seconds']:.3f}), "
        f"training {training:.4f} s; server {figures['server_cpu_ms']:.0f} ms of a processor a round"
    )
    print(f"beyond training: {beyond:.3f} s, {beyond / LIMIT:.2f} of the limit of {LIMIT} s")
    if arguments.json:
        arguments.json.write_text(json.dumps([figures], indent=2) + "\n")
    if beyond > LIMIT and arguments.devices == 4:
        raise SystemExit("The limit is passed.")


if __name__ == "__main__":
    main()
