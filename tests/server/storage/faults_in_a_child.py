"""A run on a server's storage that is killed at its n-th commit, rename or fsync, for every n that there is.

    python faults_in_a_child.py FOLDER STRATEGY EVERY FIRST

Prints a line of JSON: the weights of a run that nothing disturbed, and for each point where another was killed what it
was about to do (or had just done), and its weights after it was started again. Each is a fork of this process.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from edgefl.algorithms import ALGORITHMS
from edgefl_server.aggregation import RunSettings
from edgefl_server.storage import (
    ServerState,
    accept_outcome,
    authenticate,
    create_run,
    enrol,
    fold_pending,
    invite,
    look_for_tasks,
    run_status,
)
from edgefl_server.storage.sessions import Session
from fake_device import Identity, outcome_for
from model_files import make_model_file

DEVICES, ROUNDS = 4, 2


def prepare(folder: Path, strategy: str) -> None:
    """A state folder with devices, and a run that has not begun."""
    state = ServerState(folder)
    token = invite(state, "people")
    for index in range(DEVICES):
        identity = Identity.number(index)
        enrol(state, token, identity.device, identity.secret_hash, "people", {})
    settings = RunSettings.of(rounds=ROUNDS, target=DEVICES, seed=7, strategy=strategy)
    create_run(state, make_model_file(algorithms=ALGORITHMS), "people", settings)
    state.close()


def run_to_its_end(folder: Path) -> str:
    """Does whatever is left; devices that sent something which was not answered send it again. The weights' hash."""
    state = ServerState(folder)
    devices = []
    for index in range(DEVICES):
        identity = Identity.number(index)
        devices.append(authenticate(state, identity.device, identity.secret))
    with state.database.read() as session:
        (name,) = [row[0] for row in session._cursor.execute("SELECT run FROM runs").fetchall()]
    while (status := run_status(state, name))["state"] == "active":
        found = look_for_tasks(state, devices)
        tasks = [(device.device, each.task) for device, each in zip(devices, found, strict=True) if each.task]

        def send(given: tuple[str, object]) -> None:
            device, task = given
            weights = np.frombuffer(state.weights.get(task.base_weights_hash), "<f4")
            accept_outcome(state, device, task.task_id, outcome_for(task, weights, 4).encode())

        with ThreadPoolExecutor(DEVICES) as pool:  # so that some share a commit
            list(pool.map(send, tasks))
        fold_pending(state)
    folded = sum(entry["outcomes"]["folded"] for entry in status["history"])
    accepted = sum(entry["outcomes"]["accepted"] for entry in status["history"])
    assert (status["state"], folded, accepted) == ("done", DEVICES * ROUNDS, 0), status
    state.close()
    return str(status["weights_hash"])


class Killing:
    """Kills this process before or after the n-th of the calls that bring something to the disk."""

    def __init__(self, at: int, told: int) -> None:
        self.at, self.told, self.count = at, told, 0

    def around(self, function: Callable[..., object], name: str) -> Callable[..., object]:
        def counted(*arguments: object, **named: object) -> object:
            self._point(f"before {name}")
            result = function(*arguments, **named)
            self._point(f"after {name}")
            return result

        return counted

    def _point(self, what: str) -> None:
        self.count += 1
        if self.count == self.at:
            os.write(self.told, what.encode())
            os.kill(os.getpid(), signal.SIGKILL)


def in_a_fork(function: Callable[[int], str], *, may_be_killed: bool = False) -> tuple[bool, str]:
    """What a function that is given a pipe returns, or wrote there before it was killed; and whether it was."""
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.write(writes, function(writes).encode())
            code = 0
        finally:
            os._exit(code)
    os.close(writes)
    with os.fdopen(reads) as pipe:
        said = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code == 0 or (may_be_killed and code == -signal.SIGKILL), (code, said)
    return code != 0, said


def killed_at(folder: Path, at: int) -> Callable[[int], str]:
    def function(told: int) -> str:
        killing = Killing(at, told)
        os.fsync = killing.around(os.fsync, "fsync")
        os.replace = killing.around(os.replace, "rename")
        Session.commit = killing.around(Session.commit, "commit")
        run_to_its_end(folder)
        return ""

    return function


def main() -> None:
    """See above."""
    base, strategy, every, first = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    logging.disable()
    in_a_fork(lambda _: prepare(base / "prepared", strategy) or "")
    shutil.copytree(base / "prepared", base / "undisturbed")
    _, undisturbed = in_a_fork(lambda _: run_to_its_end(base / "undisturbed"))
    killed, at = [], first
    while True:
        folder = base / f"killed-{at}"
        shutil.copytree(base / "prepared", folder)
        was_killed, what = in_a_fork(killed_at(folder, at), may_be_killed=True)
        if not was_killed:
            break
        _, weights = in_a_fork(lambda _, folder=folder: run_to_its_end(folder))
        killed.append((at, what, weights))
        shutil.rmtree(folder)
        at += every
    sys.stdout.write(json.dumps({"undisturbed": undisturbed, "killed": killed}))


if __name__ == "__main__":
    main()
