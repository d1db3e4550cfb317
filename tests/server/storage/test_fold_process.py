"""A fold beside the server is the same fold, and whatever happens to its process costs time and nothing else."""

from __future__ import annotations

import pickle
import signal
import subprocess
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgefl.errors import RunError, StorageError
from edgefl_server.storage import fold_process, fold_round, folding, pending_folds, run_log, run_status
from edgefl_server.storage.fold_process import make_beside
from edgefl_server.storage.folding import load_work
from edgefl_server.storage.made_folds import LostStartError

SETTINGS = {
    "fedavg": {},
    "scaffold": {"strategy": "scaffold"},
    "a rule that looks at all": {"strategy": "robust", "rule": "krum", "byzantine": 1, "minimum": 5},
    "differences": {"down_codec": "drive"},
    "coded updates": {"codec": "int8"},
    "an evaluation": {"kind": "evaluate"},
}


def collected(fleet, **settings):
    """A run with one closed round of six accepted outcomes."""
    devices = fleet.devices or fleet.add_devices(6)
    run = fleet.create_run(**{"target": 6, "minimum": 1, "rounds": 1, "seed": 5, **settings})
    for device in devices:
        outcome = fleet.outcome(fleet.task(device))
        fleet.accept(device, replace(outcome, sections=()) if settings.get("kind") == "evaluate" else outcome)
    return run


def told(fleet, run):
    """All that an operator is told of a run, but for when."""
    status, log = run_status(fleet.state, run), run_log(fleet.state, run)
    history = [
        {name: entry[name] for name in ("state", "outcomes", "loss", "metrics", "diagnostics", "why") if name in entry}
        for entry in status["history"]
    ]
    return status["weights_hash"], history, [each["updates"] for each in log["folds"]]


@pytest.mark.parametrize("case", SETTINGS)
def test_a_fold_is_the_same_to_the_last_bit_in_a_process_of_its_own(make_fleet, monkeypatch, case: str) -> None:
    found = []
    for name, most in (("here", 1 << 30), ("beside", 0)):
        fleet = make_fleet(name)
        monkeypatch.setattr("edgefl_server.storage.creating.secrets.token_hex", lambda count: "ab" * count)
        run = collected(fleet, **SETTINGS[case])
        monkeypatch.setattr(folding, "_LARGE_BYTES", most)
        assert fleet.fold()
        assert run_status(fleet.state, run)["state"] == "done"
        found.append(told(fleet, run))
        monkeypatch.undo()
    assert found[0] == found[1]


def test_a_damaged_outcome_is_left_out_there_too(fleet, monkeypatch) -> None:
    run = collected(fleet)
    monkeypatch.setattr(folding, "_LARGE_BYTES", 0)
    file = min(path for path in (fleet.state.folder / "outcomes").iterdir() if not path.name.startswith("."))
    file.write_bytes(b"something else")
    assert fleet.fold()
    (entry,) = run_status(fleet.state, run)["history"]
    assert (entry["state"], entry["outcomes"]["damaged"], entry["outcomes"]["folded"]) == ("done", 1, 5)


def test_weights_that_are_gone_end_the_run(fleet, monkeypatch) -> None:
    run = collected(fleet)
    monkeypatch.setattr(folding, "_LARGE_BYTES", 0)
    (weights,) = (fleet.state.folder / "weights").iterdir()
    weights.unlink()
    fleet.fold()
    status = run_status(fleet.state, run)
    assert status["state"] == "failed"
    assert "cannot be folded" in str(status)


def test_a_process_that_is_killed_is_a_trouble_and_the_fold_is_made_later(fleet, monkeypatch) -> None:
    run = collected(fleet)
    monkeypatch.setattr(folding, "_LARGE_BYTES", 0)
    start = subprocess.Popen

    def start_and_kill(*arguments, **settings):
        process = start(*arguments, **settings)
        process.send_signal(signal.SIGKILL)
        return process

    with monkeypatch.context() as patched:
        patched.setattr(fold_process.subprocess, "Popen", start_and_kill)
        (found,) = pending_folds(fleet.state)
        assert not fold_round(fleet.state, *found)
    assert "ended by signal 9" in " ".join(fleet.state.troubles.of(run))
    assert pending_folds(fleet.state) == []
    fleet.clock.now += 60
    assert fleet.fold()
    assert run_status(fleet.state, run)["state"] == "done"
    assert fleet.state.troubles.of(run) == []


class Endless:
    """Work that never begins."""

    @property
    def version(self) -> None:
        threading.Event().wait()


def test_a_process_ends_with_its_server(tmp_path: Path) -> None:
    pipe = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(fold_process._COMMAND, env=fold_process._environment(), **pipe) as process:
        pickle.dump(fold_process._Given(tmp_path, Endless(), None, {}), process.stdin)
        process.stdin.close()  # as the kernel does it for a server that is killed
        assert process.wait(60) == 1
        assert process.stdout.read() == b""


def test_what_goes_wrong_there_is_told_as_if_it_were_here() -> None:
    full = StorageError("Could not write.", hint="Free some space.", full=True)
    for error, kind in ((full, StorageError), (LostStartError("gone"), LostStartError), (ValueError("x"), RunError)):
        again = fold_process._error(pickle.loads(pickle.dumps(fold_process._failed(error))))
        assert type(again) is kind
        assert again.message in ("Could not write.", "gone.", "ValueError: x.")
    again = fold_process._error(fold_process._failed(full))
    assert (again.full, again.hint) == (True, "Free some space.")


def test_what_was_checked_is_not_checked_again_there(fleet, monkeypatch, tmp_path: Path) -> None:
    collected(fleet)
    ((run, number),) = pending_folds(fleet.state)
    with fleet.state.database.read() as session:
        work = load_work(session, run, number)
    digests = [each.digest for each in work.accepted]
    known = fleet.state.placements.known(digests)
    assert sorted(known) == sorted(digests)
    first = make_beside(fleet.state, work, work.of.standing)
    for digest in digests:
        fleet.state.placements.forget(digest)
    assert fleet.state.placements.known(digests) == {}
    again = make_beside(fleet.state, work, work.of.standing)
    assert again == first
    assert first.figures is not None
    weights = np.frombuffer(fleet.state.weights.get(first.figures.weights_hash), "<f4")
    assert np.isfinite(weights).all()
