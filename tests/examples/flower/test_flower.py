"""The Flower app in Flower's own simulation, in an environment of its own; needs a package registry."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from server_process import free_port

pytestmark = [pytest.mark.network, pytest.mark.slow]

ROOT = Path(__file__).parents[3]
APP = ROOT / "examples" / "flower"
DEVICES, ROUNDS = 10, 8
QUIET = {
    "PYTHONPATH": "",
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}


def run(*command: object, **settings: str) -> str:
    """Standard output and error of a command that must succeed."""
    done = subprocess.run(
        [str(word) for word in command],
        env={**os.environ, **settings},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=1200,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def flower(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment with Flower, edgefl's part for devices, and the app."""
    folder = tmp_path_factory.mktemp("flower") / "env"
    run(sys.executable, "-m", "venv", folder)
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder.parent, ROOT)
    run(folder / "bin" / "pip", "install", "-q", "--find-links", folder.parent, APP, **QUIET)
    assert "tensorflow" not in run(folder / "bin" / "pip", "list").lower()
    return folder / "bin"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "digits.tflite"
    convert = [sys.executable, "-m", "edgefl", "convert", "examples.digits.model:build", "-o", path]
    # In a process of its own, which finds the examples.
    there = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    run(*convert, "--batch-size", "10", PYTHONPATH=there)
    return path


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


@contextmanager
def running(command: list[object], **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is stopped at the end, with all that it started: Flower's go on starting others without it."""
    process = subprocess.Popen([str(word) for word in command], start_new_session=True, **options)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(30)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


@contextmanager
def superlink(flower: Path, folder: Path, port: int, *options: str) -> Iterator[dict[str, str]]:
    """Flower's server, with a home of its own; what its commands need to find it."""
    home = folder / "home"
    home.mkdir()
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "own"\n[superlink.own]\naddress = "127.0.0.1:{port}"\ninsecure = true\n'
    )
    settings = {**QUIET, "FLWR_HOME": str(home), "PATH": f"{flower}{os.pathsep}{os.environ['PATH']}"}
    options = ("--insecure", "--disable-runtime-dependency-installation", *options)
    command = [flower / "flower-superlink", *options, "--host", "127.0.0.1", "--port", str(port)]
    told = folder / "superlink.log"
    with (
        told.open("w") as log,
        running(command, env={**os.environ, **settings}, stdout=log, stderr=subprocess.STDOUT) as process,
    ):
        while not answers(port):
            assert process.poll() is None, told.read_text()
            time.sleep(0.2)
        yield settings


def simulated(flower: Path, folder: Path, **config: object) -> str:
    """What a run of the app says, from its beginning to its end."""
    folder.mkdir()
    fleet = f"num-supernodes={DEVICES} client-resources-num-cpus=1"
    with superlink(flower, folder, free_port(), "--simulation") as settings:
        return run(flower / "flwr", *_run_words(folder, **config), "--federation-config", fleet, **settings)


def _run_words(folder: Path, **config: object) -> list[object]:
    given = {"out": str(folder / "out"), "fraction-train": 1.0, **config}
    words = " ".join(f"{name}={value!r}" for name, value in given.items())
    return ["run", APP, "--stream", "--run-config", words]


def by_edgefl(model: Path) -> float:
    """The accuracy after the same rounds of `edgefl simulate`, on the same rows of the same devices."""
    import edgefl
    from edgefl_simulation import load_data

    arrays = load_data("digits").arrays
    x, y = arrays["x"].reshape(-1, 64), arrays["y"]
    test = np.arange(len(x)) % 10 == 0
    data = {"x": x[~test], "y": y[~test], "test_x": x[test], "test_y": y[test]}
    same = {"devices": DEVICES, "cohort": DEVICES, "rounds": ROUNDS, "partition": "dirichlet:0.5", "epochs": 5}
    history = edgefl.simulate(str(model), data, **same, learning_rate=0.1, seed=1, workers=1)
    return float(history.metric("accuracy")[-1])


def test_flower_trains_with_edgefl_as_well_as_edgefl_itself(flower: Path, model: Path, tmp_path: Path) -> None:
    told = simulated(flower, tmp_path / "run", model=str(model), **{"num-server-rounds": ROUNDS})
    assert told.count(f"aggregate_train: Received {DEVICES} results and 0 failures") == ROUNDS, told[-4000:]
    rounds = json.loads((tmp_path / "run" / "out" / "accuracy.json").read_text())
    assert list(rounds) == [str(number) for number in range(ROUNDS + 1)]
    ours = by_edgefl(model)
    assert ours > 0.85
    assert rounds[str(ROUNDS)]["accuracy"] > ours - 0.03
    weights = np.load(tmp_path / "run" / "out" / "weights.npy")
    run(sys.executable, "-m", "edgefl", "export", model, "--weights", tmp_path / "run" / "out" / "weights.npy", "-o",
        tmp_path / "trained.keras")  # fmt: skip
    assert weights.dtype == np.float32


def test_a_run_in_which_every_device_fails_is_told_and_leaves_no_weights(
    flower: Path, model: Path, tmp_path: Path
) -> None:
    told = simulated(
        flower, tmp_path / "run", model=str(model), partition="no-such-partition", **{"num-server-rounds": 2}
    )
    assert f"Round 1: none of {DEVICES} devices trained" in told
    assert not (tmp_path / "run" / "out").exists()


def test_a_flower_client_trains_to_the_bits_of_an_edgefl_device(flower: Path, model: Path, tmp_path: Path) -> None:
    generator = np.random.default_rng(3)
    x = generator.random((47, 64), np.float32)
    np.savez(tmp_path / "rows.npz", x=x, y=generator.integers(0, 10, 47).astype(np.int32))
    told = run(flower / "python", Path(__file__).with_name("one_device.py"), model, tmp_path / "rows.npz", **QUIET)
    flowers, own = [line for line in told.splitlines() if len(line) == 64]
    assert flowers == own


def test_flowers_own_devices_train_on_their_files(flower: Path, model: Path, tmp_path: Path) -> None:
    from edgefl_simulation import load_data

    arrays = load_data("digits").arrays
    x, y = arrays["x"].reshape(-1, 64), arrays["y"]
    mine = np.flatnonzero(np.arange(len(x)) % 10)
    port = free_port()
    with superlink(flower, tmp_path, port) as settings, ExitStack() as devices:
        for number in range(2):
            np.savez(tmp_path / f"{number}.npz", x=x[mine[number::2]], y=y[mine[number::2]])
            data = f"data={str(tmp_path / f'{number}.npz')!r}"
            command = [flower / "flower-supernode", "--insecure", "--superlink", f"127.0.0.1:{port}"]
            command += ["--port", str(free_port()), "--node-config", data]
            log, env = subprocess.DEVNULL, {**os.environ, **settings}
            devices.enter_context(running(command, env=env, stdout=log, stderr=log))
        told = run(flower / "flwr", *_run_words(tmp_path, model=str(model), **{"num-server-rounds": 2}), **settings)
    assert told.count("aggregate_train: Received 2 results and 0 failures") == 2
    rounds = json.loads((tmp_path / "out" / "accuracy.json").read_text())
    assert rounds["2"]["accuracy"] > 0.9
