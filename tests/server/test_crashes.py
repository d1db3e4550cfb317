"""kill -9 of the server at random moments: nothing that was answered with 202 is lost or counted twice."""

from __future__ import annotations

import random
import sqlite3
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from edgefl_server.operator_client import OperatorClient
from edgefl_server.operator_file import OperatorFile
from fake_device import FakeDevice, Identity
from model_files import make_model_file
from server_process import ServerProcess, free_port

DEVICES = 4
LONGEST_SECONDS = 180.0
"""More than the time between two kills, and from the last one to the end, on a machine that does much else."""
ROUND_QUERY = {"population": "people", "target": DEVICES, "seed": 11}


def prepared(tmp_path: Path, name: str) -> ServerProcess:
    return ServerProcess(tmp_path / name, free_port())


def have_accepted(devices: list[FakeDevice], least: int) -> bool:
    """Whether so many outcomes were answered with 202."""
    return sum(len(device.accepted) for device in devices) >= least


def wait_until(reached: Callable[[], bool], threads: list[threading.Thread], pause: float) -> None:
    """Lets the devices work; a device that gave up, or one that gets nothing any more, ends the waiting."""
    limit = time.monotonic() + LONGEST_SECONDS
    while not reached():
        assert all(thread.is_alive() for thread in threads)
        assert time.monotonic() < limit
        time.sleep(pause)


def train(server: ServerProcess, rounds: int, kills: int, seed: int) -> tuple[bytes, list[FakeDevice], str]:
    """One run with fake devices hammering while the server is killed; the final weights."""
    server.start()
    client = OperatorClient(OperatorFile.read(server.state))
    token = client.post("/v1/invitations", {"population": "people"})["token"]
    devices = [FakeDevice(server.url, Identity.number(index)) for index in range(DEVICES)]
    for device in devices:
        assert device.enrol("people", token) in (200, 201)
    run = client.upload("/v1/runs", {**ROUND_QUERY, "rounds": rounds}, make_model_file())["run"]
    over = threading.Event()
    threads = [threading.Thread(target=device.work, args=(over.is_set,), daemon=True) for device in devices]
    for thread in threads:
        thread.start()
    moments = random.Random(seed)
    try:
        # Spread over the run by its progress, so that every kill hits it however fast the machine is.
        for progress in sorted(moments.sample(range(rounds * DEVICES * 9 // 10), kills)):
            wait_until(partial(have_accepted, devices, progress), threads, 0.002)
            server.wait_for(moments.uniform(0.0, 0.03))
            server.kill()
            server.start()
        wait_until(lambda: client.get(f"/v1/runs/{run}")["state"] != "active", threads, 0.2)
    finally:
        over.set()
        for thread in threads:
            thread.join(60)
    weights, _ = client.download(f"/v1/runs/{run}/weights")
    assert client.get(f"/v1/runs/{run}")["state"] == "done"
    return weights, devices, run


def assert_folded_exactly_once(server: ServerProcess, devices: list[FakeDevice], run: str, rounds: int) -> None:
    """Every 202 is one folded outcome, and nothing else was folded."""
    connection = sqlite3.connect(f"file:{server.state / 'server.sqlite'}?mode=ro", uri=True)
    folded = [row[0] for row in connection.execute("SELECT task_id FROM outcomes WHERE disposition = 'folded'")]
    others = connection.execute("SELECT count(*) FROM outcomes WHERE disposition != 'folded'").fetchone()[0]
    per_round = connection.execute("SELECT fold, count(*) FROM outcomes GROUP BY fold").fetchall()
    connection.close()
    accepted = {task for device in devices for task in device.accepted}
    assert others == 0
    assert len(folded) == len(set(folded))
    assert accepted <= set(folded)
    assert per_round == [(number, DEVICES) for number in range(1, rounds + 1)]
    assert [device.refused for device in devices] == [[]] * DEVICES


def compare(tmp_path: Path, rounds: int, kills: int, seed: int) -> None:
    results = []
    for name, count in (("undisturbed", 0), ("killed", kills)):
        server = prepared(tmp_path, name)
        try:
            weights, devices, run = train(server, rounds, count, seed)
        finally:
            server.stop()
        assert_folded_exactly_once(server, devices, run, rounds)
        results.append(weights)
    assert results[0] == results[1]


def test_a_server_killed_at_random_moments_ends_with_the_same_weights_to_the_last_bit(tmp_path: Path) -> None:
    compare(tmp_path, rounds=5, kills=3, seed=1)


@pytest.mark.slow
def test_fifty_kills_change_nothing(tmp_path: Path) -> None:
    compare(tmp_path, rounds=60, kills=50, seed=2)
