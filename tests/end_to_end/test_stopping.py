"""A device that is told to stop gives its place to one that waits."""

from __future__ import annotations

import threading

import pytest

from edgefl_device_runtime.agent import Device
from moving_trainer import MovingTrainer, model_of, rows_of


class Stopped(BaseException):
    """As the command line raises on SIGTERM."""


class InterruptedTrainer(MovingTrainer):
    def train(self, task, examples, progress):
        raise Stopped


def test_a_waiting_device_takes_the_place_of_one_that_is_stopped(fleet, tmp_path):
    fleet.start_server()
    run = fleet.create_run(model_of(tmp_path), "kitchen", rounds=1, target=1, seed=1)

    def device(name, trainer):
        url, token = f"http://127.0.0.1:{fleet.port}", fleet.token("kitchen")
        return Device(url, "kitchen", rows_of(40), tmp_path / name, token=token, load_trainer=trainer)

    leaving, waiting = device("leaving", InterruptedTrainer), device("waiting", MovingTrainer)
    with pytest.raises(Stopped):
        leaving.step()
    reports = []
    # One call, which the server holds until there is a place: the lease would be kept for five minutes.
    thread = threading.Thread(target=lambda: reports.append(waiting.step(wait=25.0)))
    thread.start()
    leaving.close()
    thread.join(60)
    assert [report and report.result for report in reports] == ["accepted"]
    waiting.close()
    outcomes = fleet.status(run)["history"][0]["outcomes"]
    assert outcomes["declined"] == 1
