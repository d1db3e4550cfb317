"""A schedule that lies in the test's own files works through a real server, and no module was touched for it."""

from __future__ import annotations

import json
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from edgefl.errors import EdgeflError
from edgefl.hashing import sha256, weights_hash
from edgefl.model_file import ModelFile
from edgefl.wire.messages import Outcome
from edgefl_device_runtime.tasks import Examples, ModelTrainer, Received, perform
from edgefl_device_runtime.training import TrainableModel
from edgefl_server.aggregation import (
    STRATEGIES,
    Assignment,
    Believed,
    Blob,
    Cohort,
    Contribution,
    Expectation,
    ModelLimits,
    RunSettings,
    TaskSource,
    fold,
    in_order,
    task_for,
    validate,
)
from edgefl_server.operator_client import OperatorClient
from edgefl_server.operator_file import OperatorFile
from extension.toy_schedule import Discounted
from fake_device import FakeDevice, Identity
from model_files import make_model_file
from real_processes import PATIENCE, Process, write_identity
from server_process import ServerProcess, free_port

TOY = Path(__file__).parent / "toy_schedule.py"
TOYS = {
    "toy-buffered": "toy_schedule:Buffered",
    "broken": "no_such_module:Schedule",
    "synchronous": "toy_schedule:Buffered",
}


@pytest.fixture
def server(install, tmp_path):
    install("toys", {"edgefl.schedules": TOYS}, TOY)
    server = ServerProcess(tmp_path / "state", free_port())
    server.start()
    yield server
    server.stop()


def test_a_schedule_from_outside_folds_outcomes_of_several_versions_and_waits_for_nobody(server):
    client = OperatorClient(OperatorFile.read(server.state))
    token = client.post("/v1/invitations", {"population": "people"})["token"]
    devices = [FakeDevice(server.url, Identity.number(index)) for index in range(4)]
    for device in devices:
        device.enrol("people", token)
    query = {"population": "people", "rounds": 3, "target": 2, "over_selection": 2, "seed": 3}
    run = client.upload("/v1/runs", {**query, "schedule": "toy-buffered"}, make_model_file())["run"]
    slow = devices[0].take()
    while client.get(f"/v1/runs/{run}")["history"][0]["state"] != "done":
        for device in devices[1:3]:
            device.step(0.2)
    # The slow one began from version 0, and is folded with those that begin from version 1 or later.
    assert devices[0].send(slow) is True
    while client.get(f"/v1/runs/{run}")["state"] == "active":
        devices[3].step(0.2)
    status = client.get(f"/v1/runs/{run}")
    assert (status["state"], status["round"] >= 3) == ("done", True)
    assert [entry["state"] for entry in status["history"][:3]] == ["done"] * 3
    assert [entry["outcomes"]["folded"] for entry in status["history"][:3]] == [2] * 3
    assert len({entry["weights_hash"] for entry in status["history"][:3]}) == 3
    with closing(sqlite3.connect(f"file:{server.state / 'server.sqlite'}?mode=ro", uri=True)) as database:
        stale = database.execute(
            "SELECT outcomes.task_id FROM outcomes JOIN assignments USING (task_id) JOIN folds "
            "ON folds.run = outcomes.run AND folds.number = outcomes.fold WHERE assignments.version < folds.version"
        ).fetchall()
    assert (slow.task_id,) in stale


def test_the_help_lists_the_schedules_that_are_installed(install):
    install("toys", {"edgefl.schedules": TOYS}, TOY)
    shown = Process.start("run", "create", "--help", COLUMNS="200")
    assert shown.child.wait(60) == 0
    assert "synchronous, buffered or toy-buffered" in shown.output().split("--schedule")[1].split("\n")[0]


def test_an_unknown_schedule_names_the_nearest_and_what_cannot_be_imported_or_clashes_is_named_and_left_out(server):
    client = OperatorClient(OperatorFile.read(server.state))
    client.post("/v1/invitations", {"population": "people"})
    query = {"population": "people", "rounds": 1, "target": 1}
    with pytest.raises(EdgeflError, match="synchronous, buffered, toy-buffered") as refused:
        client.upload("/v1/runs", {**query, "schedule": "toy-bufered"}, make_model_file())
    assert "toy-buffered" in str(refused.value.hint)
    assert client.upload("/v1/runs", query, make_model_file())["state"] == "active"
    errors = server.stop()[1]
    assert "'broken' (no_such_module:Schedule) of toys is left out" in errors
    assert "'synchronous' (toy_schedule:Buffered) of toys is left out" in errors


class Logged(NamedTuple):
    """What the server's tables say of an outcome that is part of the weights."""

    accepted: int
    task_id: str
    fold: int
    device: str
    attempt: int
    turn: int
    version: int
    cohort: int


class Replay:
    """The run again, by the pure functions alone, from what the server noted of it.

    Attributes:
        states: after each fold.
        seeds: of the tasks.
        stalest: by how many versions an update was behind at most.
    """

    def __init__(self, model: Path, data: dict[str, Path], settings: RunSettings, run: str) -> None:
        self.model, self.data, self.settings, self.run = model, data, settings, run
        self.trainer = ModelTrainer(TrainableModel(model))
        self.strategy = Discounted()
        layout = self.trainer.manifest.layout
        self.states = [self.strategy.init(ModelFile.read(model).initial_weights(), layout.weight_size)]
        self.seeds: list[int] = []
        self.stalest = 0

    def fold(self, log: list[Logged], enrolled: int):
        settings, manifest = self.settings, self.trainer.manifest
        believed = Believed(
            settings.max_examples, settings.max_weight_ratio, ModelLimits.of(manifest), manifest.metrics
        )
        contributions = in_order(map(self.contribution, reversed(log)))
        folded = fold(self.strategy, self.states[-1], contributions, believed, Cohort(enrolled))
        self.states.append(folded.state)
        return folded

    def contribution(self, each: Logged) -> Contribution:
        manifest, base = self.trainer.manifest, self.states[each.version].weights
        source = TaskSource(
            *("kitchen", self.run, each.version, each.cohort, each.fold, Blob(sha256(self.model.read_bytes()), 0)),
            *(manifest.graph_hash, manifest.layout.hash, Blob(weights_hash(base), 0)),
        )
        handed_out = Assignment(each.device, each.attempt, 0.0, 0.0, 0.0, version=each.version, turn=each.turn)
        task = task_for(source, self.settings, self.strategy.demand, handed_out, 60.0)
        assert task.task_id == each.task_id
        self.seeds.append(task.seed)
        rows = np.load(self.data[each.device])
        local = Examples({manifest.inputs[0]: rows["x"]}, {manifest.targets[0].name: rows["y"]})
        outcome = Outcome.decode(perform(task, self.trainer, Received(base), local).outcome.encode())
        expected = Expectation(
            task.task_id,
            task.base_weights_hash,
            task.layout_hash,
            manifest.layout.weight_size,
            manifest.layout.statistic_size,
            sections=self.strategy.demand.sections,
        )
        update = validate(outcome, expected).begun(each.version, newest=len(self.states) - 1)
        self.stalest = max(self.stalest, update.staleness)
        return Contribution(each.task_id, outcome.num_examples, lambda: update, each.accepted)


def wait_for(condition) -> None:
    ends = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.02)


DEVICES, BUFFER, FOLDS, SEED = 4, 3, 12, 9
LOG = """
    SELECT outcomes.accepted, outcomes.task_id, outcomes.fold, outcomes.device, assignments.attempt, assignments.turn,
        assignments.version, assignments.cohort
    FROM outcomes JOIN assignments USING (task_id) WHERE outcomes.disposition = 'folded' ORDER BY outcomes.accepted
"""
VERSIONS = """
    SELECT versions.number, versions.fold, versions.weights_hash, folds.enrolled, folds.diagnostics
    FROM versions JOIN folds ON folds.run = versions.run AND folds.number = versions.fold ORDER BY versions.number
"""


def test_devices_and_a_server_that_is_killed_end_with_the_bits_that_the_order_of_acceptance_gives(
    install, fleet, write_data, mlp_file, monkeypatch
):
    install(
        "toys",
        {
            "edgefl.schedules": {"toy-buffered": "toy_schedule:Buffered"},
            "edgefl.strategies": {"discounted": "toy_schedule:Discounted"},
        },
        TOY,
    )
    fleet.start_server()
    settings = {
        **{"rounds": FOLDS, "target": BUFFER, "over_selection": DEVICES / BUFFER, "lease_seconds": 30},
        **{"schedule": "toy-buffered", "strategy": "discounted", "seed": SEED, "epochs": 2},
    }
    run = fleet.create_run(mlp_file, "kitchen", **settings)
    data = {write_identity(fleet.folder / f"d{i}", i): write_data(f"d{i}", 20 + 37 * i, i) for i in range(DEVICES)}
    for i, file in enumerate(data.values()):
        fleet.start_device(f"d{i}", "kitchen", file)
    wait_for(lambda: fleet.status(run)["round"] > FOLDS // 3)
    fleet.server.kill()
    assert any(device.running for device in fleet.devices)
    fleet.start_server()
    for device in fleet.devices:
        device.finish()
    status = fleet.status(run)
    assert (status["state"], status["settings"]["strategy"]) == ("done", "discounted")
    assert [entry["outcomes"]["folded"] for entry in status["history"][:FOLDS]] == [BUFFER] * FOLDS

    log = [Logged(*row) for row in fleet.query(LOG)]
    assert len({each.accepted for each in log}) == len(log) == FOLDS * BUFFER
    assert {each.cohort for each in log} == {1}
    monkeypatch.setitem(STRATEGIES._entries, "discounted", Discounted)  # this process was there before
    replay = Replay(mlp_file, data, RunSettings.from_json(status["settings"]), run)
    for version, number, digest, enrolled, diagnostics in fleet.query(VERSIONS):
        folded = replay.fold([each for each in log if each.fold == number], enrolled)
        assert (version, weights_hash(replay.states[-1].weights)) == (len(replay.states) - 1, digest)
        assert folded.diagnostics == json.loads(diagnostics)
    assert len(replay.states) == FOLDS + 1
    np.testing.assert_array_equal(replay.states[-1].weights, fleet.weights(run))
    assert len(set(replay.seeds)) == len(log)
    assert replay.stalest > 0  # a device of the first fold came later, or else every one was waited for
