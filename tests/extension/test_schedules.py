"""A schedule that lies in the test's own files works through a real server, and no module was touched for it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from edgefl.errors import EdgeflError
from edgefl_server.operator_client import OperatorClient
from edgefl_server.operator_file import OperatorFile
from fake_device import FakeDevice, Identity
from model_files import make_model_file
from server_process import ServerProcess, free_port

TOY = Path(__file__).parent / "toy_schedule.py"
TOYS = {
    "buffered": "toy_schedule:Buffered",
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
    run = client.upload("/v1/runs", {**query, "schedule": "buffered"}, make_model_file())["run"]
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


def test_an_unknown_schedule_names_the_nearest_and_what_cannot_be_imported_or_clashes_is_named_and_left_out(server):
    client = OperatorClient(OperatorFile.read(server.state))
    client.post("/v1/invitations", {"population": "people"})
    query = {"population": "people", "rounds": 1, "target": 1}
    with pytest.raises(EdgeflError, match="synchronous, buffered") as refused:
        client.upload("/v1/runs", {**query, "schedule": "bufered"}, make_model_file())
    assert "buffered" in str(refused.value.hint)
    assert client.upload("/v1/runs", query, make_model_file())["state"] == "active"
    errors = server.stop()[1]
    assert "'broken' (no_such_module:Schedule) of toys is left out" in errors
    assert "'synchronous' (toy_schedule:Buffered) of toys is left out" in errors
