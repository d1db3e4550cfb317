"""Simulations that were broken off, by whatever it was, go on to the same bits, or say why they cannot."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import edgefl
from edgefl.errors import InvalidSettingError, RuntimeFailure, StorageError
from edgefl.hashing import weights_hash
from edgefl_simulation import run_folder
from edgefl_simulation.engines.local import Local
from edgefl_simulation.pace import Steady

SETTINGS = {"devices": 6, "partition": "dirichlet:1,2", "rounds": 5, "cohort": 3, "workers": 1, "seed": 3}


@pytest.fixture
def data(owned):
    found = owned(3, 40)
    return found["x"], found["y"]


def rows_of(history):
    return [{**row, "seconds": 0} for row in history.rounds]


def test_a_run_that_was_broken_off_goes_on_to_the_same_bits(federated_file, data, tmp_path, monkeypatch):
    monkeypatch.setattr(run_folder, "_PAUSE", 0.0)
    settings = {**SETTINGS, "strategy": "scaffold", "held_out": 0.2}
    whole = edgefl.simulate(federated_file, data, out=tmp_path / "whole", **settings)

    def stop(row):
        if row["round"] == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        edgefl.simulate(federated_file, data, out=tmp_path / "broken", on_round=stop, **settings)
    (tmp_path / "broken" / "rounds.jsonl").open("a").write('{"round": 4, "cut sh')
    told = []
    again = edgefl.simulate(
        federated_file, data, out=tmp_path / "broken", resume=True, on_round=told.append, **settings
    )
    assert [row["round"] for row in told] == [4, 5]
    assert rows_of(again) == rows_of(whole)
    assert again.initial == whole.initial
    assert weights_hash(again.weights) == weights_hash(whole.weights)
    lines = (tmp_path / "broken" / "rounds.jsonl").read_text().splitlines()
    assert [json.loads(line)["round"] for line in lines] == [1, 2, 3, 4, 5]
    assert weights_hash(np.load(tmp_path / "broken" / "weights.npy")) == weights_hash(whole.weights)
    finished = edgefl.simulate(federated_file, data, out=tmp_path / "broken", resume=True, **settings)
    assert rows_of(finished) == rows_of(whole)
    assert weights_hash(finished.weights) == weights_hash(whole.weights)


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("federated", {"strategy": "fedbuff", "pace": Steady(drop_out=0.2), "codec": "drive", "down_codec": "drive"}),
        ("personal", {}),
    ],
    ids=["codecs both ways", "local parameters"],
)
def test_a_buffered_run_that_was_broken_off_goes_on_to_the_same_bits(request, data, tmp_path, monkeypatch, name, more):
    monkeypatch.setattr(run_folder, "_PAUSE", 0.0)
    model = request.getfixturevalue(f"{name}_file")
    settings = {**SETTINGS, "schedule": "buffered", "cohort": 2, "rounds": 8, "lease_seconds": 3, **more}
    whole = edgefl.simulate(model, data, **settings)

    def stop(row):
        if row["round"] % 3 == 0:
            raise KeyboardInterrupt

    again = {**settings, "out": tmp_path / "run", "resume": True}
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            edgefl.simulate(model, data, on_round=stop, **again)
    history = edgefl.simulate(model, data, **{**again, "workers": 2})
    assert rows_of(history) == rows_of(whole)
    assert weights_hash(history.weights) == weights_hash(whole.weights)
    finished = edgefl.simulate(model, data, **again)
    assert (rows_of(finished), finished.devices_per_second) == (rows_of(whole), 0.0)


def test_a_killed_process_leaves_a_run_that_goes_on_to_the_same_bits(federated_file, data, tmp_path):
    np.savez(tmp_path / "data.npz", x=data[0], y=data[1])
    command = [
        *(sys.executable, "-m", "edgefl.cli.main", "simulate", federated_file, "--data", tmp_path / "data.npz"),
        *("--devices", 6, "--rounds", 400, "--cohort", 3, "--strategy", "scaffold", "--workers", 2, "--seed", 5),
        *("--evaluate-devices", 0, "--quiet", "--format", "json"),
    ]

    def run(folder, *more):
        words = [*map(str, command), "-o", str(tmp_path / folder), *more]
        return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)

    killed = run("killed")
    rounds = tmp_path / "killed" / "rounds.jsonl"
    while not (rounds.exists() and len(rounds.read_bytes().splitlines()) > 20):
        assert killed.poll() is None, killed.stderr.read()
        time.sleep(0.01)
    with contextlib.suppress(ProcessLookupError):  # it may have been fast
        os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    whole, again = run("whole"), run("killed", "--resume")
    assert [each.wait(300) for each in (whole, again)] == [0, 0]
    assert json.loads(again.stdout.read())["rounds"] == 400
    weights = [np.load(tmp_path / folder / "weights.npy") for folder in ("whole", "killed")]
    assert weights_hash(weights[0]) == weights_hash(weights[1])
    assert not (tmp_path / "killed" / "tables").exists()


def test_a_killed_worker_ends_the_simulation_with_a_message_and_it_can_be_resumed(
    plain_sgd_file, data, tmp_path, monkeypatch
):
    started = []
    begin = Local.__init__

    def noted(self, *arguments):
        begin(self, *arguments)
        started.append(self)

    monkeypatch.setattr(Local, "__init__", noted)

    def kill(row):
        if row["round"] == 2:
            os.kill(started[0]._workers[0]._process.pid, signal.SIGKILL)

    settings = {**SETTINGS, "workers": 2}
    with pytest.raises(RuntimeFailure, match=r"worker process of the simulation ended with -9\. -9 is often"):
        edgefl.simulate(plain_sgd_file, data, out=tmp_path / "run", on_round=kill, **settings)
    again = edgefl.simulate(plain_sgd_file, data, out=tmp_path / "run", resume=True, **settings)
    assert rows_of(again) == rows_of(edgefl.simulate(plain_sgd_file, data, **settings))


def test_a_terminated_simulation_ends_its_workers_and_leaves_no_temporary_files(plain_sgd_file, data, tmp_path):
    np.savez(tmp_path / "data.npz", x=data[0], y=data[1])
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    words = ["--devices", "6", "--rounds", "100000", "--cohort", "3", "--workers", "2", "--quiet"]
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "edgefl.cli.main", "simulate", plain_sgd_file, "--data", tmp_path / "data.npz"),
            *words,
        ],
        env={**os.environ, "TMPDIR": str(temporary)},
    )
    try:
        while not list(temporary.glob("edgefl-*/checkpoint.npz")) and not list(temporary.glob("edgefl-*/tables/*/*")):
            assert process.poll() is None
            time.sleep(0.05)
        process.terminate()
        assert process.wait(60) == 128 + signal.SIGTERM
    finally:
        process.kill()
    assert not list(temporary.glob("edgefl-*"))


def _checkpoint(folder, leave_out=(), **changes):
    """Writes another checkpoint: whole, but of something else."""
    arrays = dict(np.load(folder / "checkpoint.npz"))
    progress = json.loads(arrays["progress"].tobytes()) | changes
    arrays["progress"] = np.frombuffer(json.dumps(progress).encode(), np.uint8)
    np.savez(folder / "checkpoint.npz", **{name: each for name, each in arrays.items() if name not in leave_out})


def _of_another_model(folder):
    arrays = dict(np.load(folder / "checkpoint.npz"))
    np.savez(folder / "checkpoint.npz", **arrays | {"weights": np.zeros(3, np.float32)})


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda run: (run / "settings.json").write_text("[]"), "settings.json cannot be read, or is damaged"),
        (lambda run: (run / "rounds.jsonl").write_text("5\n"), "line 1 of rounds.jsonl is no row of this round"),
        (lambda run: (run / "checkpoint.npz").write_bytes((run / "weights.npy").read_bytes()), "not a zip file"),
        (lambda run: _checkpoint(run, leave_out=["weights"]), "checkpoint.npz cannot be read, or is damaged"),
        (lambda run: _checkpoint(run, fold=-1), "expected counts"),
        (lambda run: _checkpoint(run, version="1"), "expected counts"),
        (lambda run: _checkpoint(run, late={"a": 5}), "checkpoint.npz cannot be read, or is damaged"),
        (lambda run: _checkpoint(run, fetched="zz"), "checkpoint.npz cannot be read, or is damaged"),
        (lambda run: _checkpoint(run, unheard_of=5), "checkpoint.npz cannot be read, or is damaged"),
        (_of_another_model, "expected weights float32"),
    ],
)
def test_a_folder_that_is_damaged_anywhere_is_refused_and_left_as_it_is(plain_sgd_file, data, tmp_path, spoil, message):
    settings = {**SETTINGS, "rounds": 1, "workers": 1, "out": tmp_path / "run"}
    edgefl.simulate(plain_sgd_file, data, **settings)
    spoil(tmp_path / "run")
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    with pytest.raises(StorageError, match=message):
        edgefl.simulate(plain_sgd_file, data, **{**settings, "resume": True})
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before


def _broken_off(model, data, folder, settings):
    def stop(row):
        if row["round"] == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        edgefl.simulate(model, data, out=folder, on_round=stop, **settings)
    return sorted((folder / "memories").iterdir())


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.unlink(), "memories lacks what 1 devices remember of the run"),
        (lambda path: path.write_bytes(b""), "Cannot read what a device remembers.*No data left"),
        (lambda path: path.write_bytes(path.read_bytes()[:100]), "Cannot read what a device remembers.*not a zip file"),
        (lambda path: np.savez(path, x=np.zeros(3)), "Cannot read what a device remembers.*it has arrays x"),
    ],
)
def test_a_run_does_not_go_on_with_other_bits_where_what_a_device_remembers_is_lost_or_damaged(
    federated_file, data, tmp_path, monkeypatch, spoil, message
):
    monkeypatch.setattr(run_folder, "_PAUSE", 0.0)
    settings = {**SETTINGS, "strategy": "scaffold", "cohort": 6, "rounds": 6}
    spoil(_broken_off(federated_file, data, tmp_path / "run", settings)[0])
    with pytest.raises(StorageError, match=message):
        edgefl.simulate(federated_file, data, out=tmp_path / "run", resume=True, **settings)
    (tmp_path / "run" / "checkpoint.npz").unlink()  # as the message says
    again = edgefl.simulate(federated_file, data, out=tmp_path / "run", resume=True, **settings)
    assert rows_of(again) == rows_of(edgefl.simulate(federated_file, data, **settings))


def test_a_full_disk_ends_a_run_with_a_line_leaves_no_part_of_a_file_and_the_run_goes_on_to_the_same_bits(
    federated_file, data, tmp_path, monkeypatch
):
    monkeypatch.setattr(run_folder, "_PAUSE", 0.0)
    settings = {**SETTINGS, "strategy": "scaffold"}
    whole = edgefl.simulate(federated_file, data, **settings)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write beyond the limit is then an error

    def fill(row):
        if row["round"] == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))

    try:
        with pytest.raises(StorageError, match=r"Could not write .*: File too large"):
            edgefl.simulate(federated_file, data, out=tmp_path / "run", on_round=fill, **settings)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert not [path for path in (tmp_path / "run").rglob("*") if path.name.endswith(".part")]
    again = edgefl.simulate(federated_file, data, out=tmp_path / "run", resume=True, **settings)
    assert rows_of(again) == rows_of(whole)
    assert weights_hash(again.weights) == weights_hash(whole.weights)


def test_what_a_killed_process_left_of_a_file_is_in_nobody_s_way_and_goes_with_the_next_run(
    plain_sgd_file, data, tmp_path
):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / ".settings.json.0123456789abcdef.part").write_text("{")
    settings = {**SETTINGS, "rounds": 1, "out": folder}
    edgefl.simulate(plain_sgd_file, data, **settings)
    (folder / ".checkpoint.npz.0123456789abcdef.part").write_bytes(b"PK")
    edgefl.simulate(plain_sgd_file, data, resume=True, **settings)
    assert not list(folder.glob(".*"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / ".letter.part").write_text("dear")
    with pytest.raises(InvalidSettingError, match="is not empty"):
        edgefl.simulate(plain_sgd_file, data, **{**settings, "out": tmp_path / "mine"})
