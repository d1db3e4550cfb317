"""What a round costs beyond training: real devices and a real server, all processes of this machine.

    python benchmarks/rounds.py                   # 4 devices, 60 rounds
    python benchmarks/rounds.py --devices 8 --rounds 20

Each device makes one step of a small model, so that training takes about nothing; how long is measured in this
process, with the same model, rows and code, and taken off. What is left is handing out, downloading, uploading,
accepting, folding, and five programs that share this machine's cores. While rounds are counted nobody else asks the
server anything: when each round was opened it tells afterwards. The limit: 0.1 s a round with four devices.

On a machine that is busy with other things only the milliseconds of the processor say something, and best those of
runs of two worktrees that take turns.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from edgefl_device_runtime.training import TrainableModel
from edgefl_server.operator_client import OperatorClient

_ROOT = Path(__file__).parents[1]
sys.path += [str(_ROOT), str(_ROOT / "tests" / "golden")]
from golden_set import array  # noqa: E402

from examples.fleet import Fleet  # noqa: E402

MODEL = _ROOT / "tests" / "golden" / "dropout.tflite"
LIMIT = 0.1
WARM_ROUNDS = 8
"""Devices start, enrol and load the model during the first ones, which are not counted."""
_LEARNING_RATE = 0.001
_SAMPLE_SECONDS = 0.1


def training_seconds() -> float:
    """One step from given weights to a delta, as a device that has the model loaded makes it; the median of 50."""
    model, x, y = TrainableModel(MODEL), array("x"), array("y")
    times = []
    for _ in range(50):
        begin = time.perf_counter()
        model.fit(x, y, epochs=1, max_steps=1, learning_rate=_LEARNING_RATE, seed=1)
        times.append(time.perf_counter() - begin)
    return float(np.median(times))


def cpu_seconds(process: int) -> float:
    """What a process has used of the processor, from /proc of Linux; OSError: it is gone."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(folder: Path, devices: int, rounds: int) -> dict[str, float]:
    """Seconds a round and what the processes used of the processor for each, after the warm rounds."""
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
        client = OperatorClient.find(fleet.state, None)
        first = 0
        while first < WARM_ROUNDS:
            time.sleep(_SAMPLE_SECONDS)
            first = sum(each["state"] == "done" for each in client.get(f"/v1/runs/{run}")["history"])
        started = [device.process.pid for device in fleet.devices if device.process is not None]
        before, samples = cpu_seconds(fleet.server_pid), [[*map(cpu_seconds, started)]]
        while all(device.running for device in fleet.devices):  # they end with the run
            with contextlib.suppress(OSError):  # one has just ended
                samples.append([*map(cpu_seconds, started)])
            time.sleep(_SAMPLE_SECONDS)
        after = cpu_seconds(fleet.server_pid)
        for device in fleet.devices:
            device.result(60)
        history = client.get(f"/v1/runs/{run}")["history"]
    steps, counted = np.diff([each["opened_at"] for each in history[first:]]), len(history) - first
    return {
        "devices": devices,
        "rounds": counted,
        "seconds_a_round": float(np.median(steps)),
        "p90_seconds": float(np.quantile(steps, 0.9)),
        "server_cpu_ms": (after - before) / counted * 1e3,
        "device_cpu_ms": float(np.mean(np.subtract(samples[-1], samples[0]))) / counted * 1e3,
    }


def main() -> None:
    """Prints the figures; exit code 1 where the limit is passed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--json", type=Path, help="write the figures there")
    arguments = parser.parse_args()
    training = training_seconds()
    with tempfile.TemporaryDirectory() as name:
        figures = measure(Path(name), arguments.devices, arguments.rounds)
    beyond = figures["seconds_a_round"] - training
    figures |= {"training_seconds": training, "beyond_seconds": beyond, "ratio": beyond / LIMIT}
    print(
        f"{arguments.devices} devices, {figures['rounds']} rounds: {figures['seconds_a_round']:.3f} s a round "
        f"(90 %: {figures['p90_seconds']:.3f}), training {training:.4f} s; ms of a processor a round: server "
        f"{figures['server_cpu_ms']:.0f}, each device {figures['device_cpu_ms']:.1f}; load {os.getloadavg()[0]:.1f}"
    )
    print(f"beyond training: {beyond:.3f} s, {beyond / LIMIT:.2f} of the limit of {LIMIT} s")
    if arguments.json:
        arguments.json.write_text(json.dumps([figures], indent=2) + "\n")
    if beyond > LIMIT and arguments.devices == 4:
        raise SystemExit("The limit is passed.")


if __name__ == "__main__":
    main()
