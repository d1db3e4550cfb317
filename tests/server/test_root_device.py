"""FLTrust on a real server: attackers in a majority, whoever comes first, and kill -9 in between."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgefl.model_file import ModelFile
from edgefl.wire.messages import Outcome, Task
from edgefl_server.operator_client import OperatorClient
from edgefl_server.operator_file import OperatorFile
from fake_device import FakeDevice, Identity, outcome_for
from model_files import make_model_file
from server_process import ServerProcess, free_port

DEVICES, BAD, ROUNDS, WEIGHTS = 5, 3, 4, 16
"""Three of five attack; the root device comes beside them."""
PATIENCE = 120.0


def honest(task: Task, weights: np.ndarray, statistic_size: int) -> Outcome:
    """Goes towards weights of 1, with a bit of its own beside that."""
    outcome = outcome_for(task, weights, statistic_size)
    return moved(task, outcome, 0.2 * (1 - weights[:WEIGHTS]) + 0.1 * outcome.section("delta").vector())


def attacking(task: Task, weights: np.ndarray, statistic_size: int) -> Outcome:
    outcome = honest(task, weights, statistic_size)
    return moved(task, outcome, -20 * outcome.section("delta").vector())


def moved(task: Task, outcome: Outcome, delta: np.ndarray) -> Outcome:
    section = task.section("delta", delta.astype(np.float32))
    return replace(outcome, sections=tuple(section if each.name == "delta" else each for each in outcome.sections))


def trained(folder: Path, kills: int, settings: dict[str, object], root_last: bool) -> tuple[bytes, dict]:
    """A run of threads that ask for work as they like; its last weights and status."""
    server = ServerProcess(folder, free_port())
    over = threading.Event()
    try:
        server.start()
        client = OperatorClient(OperatorFile.read(server.state))
        token = client.post("/v1/invitations", {"population": "people"})["token"]
        makes = [attacking] * BAD + [honest] * (DEVICES - BAD) + [honest]
        devices = [FakeDevice(server.url, Identity.number(index), make=make) for index, make in enumerate(makes)]
        for device in devices:
            assert device.enrol("people", token) == 201
        root = devices[-1].identity.device
        query = {"population": "people", "target": DEVICES, "rounds": ROUNDS, "seed": 11, **settings}
        if "rule" in settings:
            query["root_device"] = root
        run = client.upload("/v1/runs", query, make_model_file())["run"]
        threads = [threading.Thread(target=each.work, args=(over.is_set,), daemon=True) for each in devices[:-1]]
        for thread in threads:
            thread.start()
        if "rule" in settings:
            threads.append(threading.Thread(target=devices[-1].work, args=(over.is_set,), daemon=True))
            if root_last:
                wait(lambda: client.get(f"/v1/runs/{run}")["history"][0]["outcomes"]["accepted"] == DEVICES)
                status = client.get(f"/v1/runs/{run}")
                assert status["round"] == 1
                assert status["warnings"] == [f"round 1 waits for its root device {root}, which is not at work on it"]
            threads[-1].start()
        for kill in range(kills):
            wait(lambda kill=kill: sum(len(each.accepted) for each in devices) > 7 * kill)
            server.kill()
            server.start()
        wait(lambda: client.get(f"/v1/runs/{run}")["state"] != "active")
        weights, _ = client.download(f"/v1/runs/{run}/weights")
        return weights, client.get(f"/v1/runs/{run}")
    finally:
        over.set()
        server.stop()


def wait(reached) -> None:
    limit = time.monotonic() + PATIENCE
    while not reached():
        assert time.monotonic() < limit
        time.sleep(0.02)


def test_a_root_device_holds_off_a_majority_and_neither_order_nor_kills_change_a_bit(tmp_path: Path) -> None:
    rule = {"rule": "fltrust"}
    weights, status = trained(tmp_path / "a", 0, rule, root_last=True)
    assert (status["state"], [each["state"] for each in status["history"]]) == ("done", ["done"] * ROUNDS)
    assert [each["outcomes"]["folded"] for each in status["history"]] == [DEVICES] * ROUNDS
    assert trained(tmp_path / "b", 3, rule, root_last=False)[0] == weights
    ruined, _ = trained(tmp_path / "c", 0, {}, root_last=False)
    first = ModelFile(make_model_file()).initial_weights()[:WEIGHTS]

    def far(data: bytes) -> float:
        return float(np.linalg.norm(np.frombuffer(data, "<f4")[:WEIGHTS] - 1))

    assert far(weights) < 0.7 * np.linalg.norm(first - 1)
    assert far(ruined) > 10 * np.linalg.norm(first - 1)
