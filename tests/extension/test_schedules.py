"""A schedule that lies in the test's own files works through a real server, and no module was touched for it."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from edgefl.errors import EdgeflError
from edgefl.model_file import ModelFile
from edgefl.wire.messages import Outcome
from edgefl_device_runtime.tasks import Examples, ModelTrainer, Received, perform
from edgefl_device_runtime.training import TrainableModel
from edgefl_server.aggregation import STRATEGIES, RunLog, replay
from edgefl_server.aggregation.schedules import SCHEDULES
from edgefl_server.operator_client import OperatorClient
from edgefl_server.operator_file import OperatorFile
from extension.toy_schedule import Buffered, Discounted
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


def wait_for(condition) -> None:
    ends = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.02)


DEVICES, BUFFER, FOLDS, SEED = 4, 3, 12, 9


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

    monkeypatch.setitem(STRATEGIES._entries, "discounted", Discounted)  # this process was there before
    monkeypatch.setitem(SCHEDULES._entries, "toy-buffered", Buffered)
    log = RunLog.from_json(fleet.operator.get(f"/v1/runs/{run}/log"))
    updates = [update for each in log.folds for update in each.updates]
    assert len({each.accepted for each in updates}) == len(updates) == FOLDS * BUFFER
    assert {each.cohort for each in updates} == {1}
    trainer = ModelTrainer(TrainableModel(mlp_file))
    manifest, seeds = trainer.manifest, set()

    def again(task, vectors):
        seeds.add(task.seed)
        rows = np.load(data[task.task_id.split("-")[2]])
        local = Examples({manifest.inputs[0]: rows["x"]}, {manifest.targets[0].name: rows["y"]})
        return Outcome.decode(perform(task, trainer, Received(vectors["weights"]), local).outcome.encode())

    # Each fold's weights are compared on the way.
    folded = list(replay(log, manifest, ModelFile.read(mlp_file).initial_weights(), again))
    noted = [entry["diagnostics"] for entry in status["history"][:FOLDS]]
    assert [each.diagnostics for each in folded] == noted
    np.testing.assert_array_equal(folded[-1].state.weights, fleet.weights(run))
    assert len(seeds) == len(updates)
    assert max(each.diagnostics.get("stalest", 0) for each in folded) > 0  # or else every one was waited for
