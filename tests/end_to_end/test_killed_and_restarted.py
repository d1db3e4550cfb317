"""kill -9 of the server or a device at any moment costs time and nothing else."""

from __future__ import annotations

import random
import re
import time

import numpy as np
import pytest

from edgefl.hashing import sha256
from real_processes import Fleet, write_identity
from recording_proxy import RecordingProxy, exchanges

DEVICES = 3
OUTCOME = re.compile("/v1/tasks/(?P<task>[0-9a-f-]+)/outcome")


class Run:
    """A server and three devices that stand up again whenever they are killed."""

    def __init__(self, folder, data, model, rounds, **settings):
        self.fleet = Fleet(folder)
        self.data = data
        self.names = [f"d{index}" for index in range(DEVICES)]
        for index, name in enumerate(self.names):
            write_identity(folder / name, index)
        self.fleet.start_server()
        self.proxy = RecordingProxy(self.fleet.port)
        self.fleet.via = self.proxy.port
        self.run = self.fleet.create_run(model, "kitchen", rounds=rounds, target=DEVICES, seed=3, epochs=2, **settings)
        self.processes = {name: self._start(name) for name in self.names}
        self.killed = []

    def _start(self, name):
        return self.fleet.start_device(name, "kitchen", self.data[name])

    def kill(self, victim):
        """kill -9, and the next start at once; False when there is nothing left to kill."""
        if victim == "server":
            self.fleet.server.kill()
            self.fleet.start_server(ready=False)
        elif self.processes[victim].running:
            self.processes[victim].kill()
            self.processes[victim] = self._start(victim)
        else:
            return False
        self.killed.append(victim)
        return True

    def finish(self):
        self.fleet.wait_for_server()
        for process in self.processes.values():
            process.finish(patience=600)
        self.status = self.fleet.status(self.run)
        self.weights = self.fleet.weights(self.run)
        self.folded = self.fleet.query("SELECT task_id, disposition, digest, fold FROM outcomes ORDER BY task_id")

    def close(self):
        self.proxy.close()
        self.fleet.close()

    def answered(self):
        """What the server answered to each outcome that came: task id to statuses, and to the digests of bodies."""
        statuses, digests = {}, {}
        for recording in self.proxy.recordings:
            for exchange in exchanges(recording, cut=True):
                if exchange.request.method == "PUT" and exchange.reply is not None:
                    task = OUTCOME.fullmatch(exchange.request.path)["task"]
                    statuses.setdefault(task, []).append(exchange.reply.status)
                    headers = dict(exchange.request.headers)
                    # The body of one that goes on where it was cut is a part only, whose whole the header names.
                    whole = headers["EdgeFL-Offset"] == "0"
                    digest = sha256(exchange.request.body) if whole else headers["EdgeFL-Digest"]
                    digests.setdefault(task, set()).add(digest)
        return statuses, digests


def compare(tmp_path, write_data, model, kills, rounds, longest_pause, **settings):
    data = {f"d{index}": write_data(f"data{index}", rows=27 + 8 * index, seed=index) for index in range(DEVICES)}
    undisturbed = Run(tmp_path / "undisturbed", data, model, rounds, **settings)
    try:
        undisturbed.finish()
    finally:
        undisturbed.close()
    disturbed = Run(tmp_path / "disturbed", data, model, rounds, **settings)
    try:
        chaos = random.Random(20260101)
        while len(disturbed.killed) < kills:
            # The pauses are what the test is about: a kill may hit any moment of a round.
            time.sleep(chaos.uniform(0, longest_pause))
            if not disturbed.kill(chaos.choice(["server", *disturbed.names])):
                break
        disturbed.finish()
    finally:
        disturbed.close()
    assert len(disturbed.killed) == kills, "the run ended before the last kill: give it more rounds"
    assert disturbed.status["state"] == undisturbed.status["state"] == "done"
    assert disturbed.weights.tobytes() == undisturbed.weights.tobytes()
    assert np.isfinite(disturbed.weights).all()
    rounds_of = [[entry["weights_hash"] for entry in run.status["history"]] for run in (undisturbed, disturbed)]
    assert rounds_of[0] == rounds_of[1]
    for run in (undisturbed, disturbed):
        assert_folded_exactly_once(run, rounds)


def assert_folded_exactly_once(run, rounds):
    """Each outcome that was answered with 202 is one of the folded ones, with these very bytes."""
    statuses, digests = run.answered()
    accepted = {task for task, answers in statuses.items() if 202 in answers}
    folded = {task: digest for task, disposition, digest, _ in run.folded if disposition == "folded"}
    assert len(folded) == len(run.folded) == DEVICES * rounds
    assert accepted == set(folded), {task: statuses.get(task) for task in set(folded) ^ accepted}
    assert all(digests[task] == {folded[task]} for task in accepted)
    assert all(set(answers) == {202} for answers in statuses.values())
    assert [entry["outcomes"]["folded"] for entry in run.status["history"]] == [DEVICES] * rounds


@pytest.mark.slow
def test_six_kills_change_nothing(tmp_path, write_data, mlp_file):
    compare(tmp_path, write_data, mlp_file, kills=6, rounds=12, longest_pause=1.0)


def test_kills_change_nothing_where_devices_and_server_have_a_memory_of_the_run(tmp_path, write_data, personal_file):
    # Local parameters and control variates: what is sent depends on all rounds before.
    compare(tmp_path, write_data, personal_file, kills=4, rounds=10, longest_pause=1.0, strategy="scaffold")


@pytest.mark.slow
def test_thirty_kills_change_nothing_where_there_is_a_memory_of_the_run(tmp_path, write_data, personal_file):
    compare(tmp_path, write_data, personal_file, kills=30, rounds=60, longest_pause=1.0, strategy="scaffold")


@pytest.mark.slow
def test_fifty_kills_change_nothing(tmp_path, write_data, mlp_file):
    compare(tmp_path, write_data, mlp_file, kills=50, rounds=200, longest_pause=1.0)
