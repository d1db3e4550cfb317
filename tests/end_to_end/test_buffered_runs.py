"""A buffered run on a real server whose devices are killed: its weights are those that its log says, bit by bit."""

from __future__ import annotations

import time

import numpy as np
import pytest

from edgefl.hashing import weights_hash
from edgefl.model_file import ModelFile
from edgefl.wire.messages import Outcome
from edgefl_device_runtime.tasks import Examples, ModelTrainer, Received, perform
from edgefl_device_runtime.training import TrainableModel
from edgefl_server.aggregation import RunLog, replay
from real_processes import PATIENCE, write_identity

DEVICES, BUFFER, FOLDS = 4, 3, 10


def wait_for(condition):
    ends = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.02)


def replayed(log, model, data):
    """What each fold leaves, whose weights are compared with the log on the way."""
    trainer = ModelTrainer(TrainableModel(model))
    manifest = trainer.manifest

    def again(task, vectors):
        rows = np.load(data[task.task_id.split("-")[2]])
        local = Examples({manifest.inputs[0]: rows["x"]}, {manifest.targets[0].name: rows["y"]})
        return Outcome.decode(perform(task, trainer, Received(vectors["weights"]), local).outcome.encode())

    return list(replay(log, manifest, ModelFile.read(model).initial_weights(), again))


@pytest.mark.parametrize(
    "settings",
    [
        {
            "strategy": "fedbuff",
            "target": BUFFER,
            "concurrency": DEVICES,
            "staleness_exponent": 1.0,
            "codec": "rand-0.25+drive",
            "down_codec": "drive",
        },
        pytest.param(
            {"strategy": "fedasync", "target": 1, "concurrency": 3, "staleness": "hinge", "staleness_threshold": 0},
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"strategy": "fedbuff", "target": BUFFER, "concurrency": DEVICES, "rule": "median"}, marks=pytest.mark.slow
        ),
    ],
    ids=["FedBuff with codecs both ways", "FedAsync", "a rule that counts devices"],
)
def test_devices_and_a_server_that_are_killed_end_with_the_bits_that_the_log_says(
    fleet, write_data, mlp_file, settings
):
    fleet.start_server()
    run = fleet.create_run(
        mlp_file, "kitchen", schedule="buffered", rounds=FOLDS, seed=9, epochs=2, lease_seconds=2, **settings
    )
    data = {write_identity(fleet.folder / f"d{i}", i): write_data(f"d{i}", 20 + 37 * i, i) for i in range(DEVICES)}
    for i, file in enumerate(data.values()):
        fleet.start_device(f"d{i}", "kitchen", file)
    wait_for(lambda: fleet.status(run)["round"] > 2)
    fleet.devices[1].kill()
    fleet.server.kill()
    fleet.start_server()
    fleet.start_device("d1", "kitchen", list(data.values())[1])
    for device in [*fleet.devices[:1], *fleet.devices[2:]]:
        device.finish()
    assert fleet.status(run)["state"] == "done"

    log = RunLog.from_json(fleet.operator.get(f"/v1/runs/{run}/log"))
    assert [len(each.updates) for each in log.folds] == [settings["target"]] * FOLDS
    numbers = [update.accepted for each in log.folds for update in each.updates]
    assert numbers == sorted(set(numbers))
    if "rule" in settings:
        assert all(len({update.device for update in each.updates}) == settings["target"] for each in log.folds)
    folded = replayed(log, mlp_file, data)
    assert len(folded) == FOLDS
    assert weights_hash(fleet.weights(run)) == weights_hash(folded[-1].state.weights)
    assert any("stalest" in each.diagnostics for each in folded)


@pytest.mark.slow
def test_pauses_and_rollbacks_between_kills_are_in_the_log_too(fleet, write_data, mlp_file):
    fleet.start_server()
    settings = {"strategy": "fedbuff", "target": 2, "concurrency": DEVICES, "down_codec": "drive", "seed": 9}
    courses = {"learning_rate_course": "cosine", "epochs": 4, "epochs_course": "cosine"}  # over all rounds
    run = fleet.create_run(
        mlp_file, "kitchen", schedule="buffered", rounds=FOLDS, lease_seconds=2, **settings, **courses
    )
    data = {write_identity(fleet.folder / f"d{i}", i): write_data(f"d{i}", 20 + 37 * i, i) for i in range(DEVICES)}
    for i, file in enumerate(data.values()):
        fleet.start_device(f"d{i}", "kitchen", file)
    wait_for(lambda: fleet.status(run)["round"] > 3)
    fleet.operator.post(f"/v1/runs/{run}/pause")
    fleet.server.kill()
    fleet.start_server()
    assert fleet.status(run)["state"] == "paused"
    fleet.operator.post(f"/v1/runs/{run}/rollback?version=1")
    fleet.operator.post(f"/v1/runs/{run}/resume")
    wait_for(lambda: fleet.status(run)["round"] > 6)
    fleet.devices[1].kill()
    fleet.operator.post(f"/v1/runs/{run}/rollback?version=2")
    fleet.server.kill()
    fleet.start_server()
    for device in [*fleet.devices[:1], *fleet.devices[2:]]:
        device.finish()
    assert fleet.status(run)["state"] == "done"
    log = RunLog.from_json(fleet.operator.get(f"/v1/runs/{run}/log"))
    assert list(log.rollbacks.values()) == [1, 2]
    assert weights_hash(fleet.weights(run)) == weights_hash(replayed(log, mlp_file, data)[-1].state.weights)
