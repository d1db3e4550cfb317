"""The engine with a real server and real devices: who is asked, what goes wrong, and how it goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import edgefl
from edgefl.errors import InvalidSettingError, RuntimeFailure
from edgefl.hashing import weights_hash
from edgefl_server.http import waiting
from edgefl_simulation import Steady, served
from edgefl_simulation.engines import http_devices
from edgefl_simulation.engines.http_fleet import HttpFleet
from edgefl_simulation.engines.http_messages import Ask, Begin
from edgefl_simulation.engines.http_server import HttpServer
from edgefl_simulation.tables import Rows, write_table
from real_processes import device_id

TIMES = {"seconds", "clock", "simulated", "device_seconds", "bytes_down", "bytes_up"}
SETTINGS = {"partition": "natural-id", "rounds": 4, "cohort": 3, "seed": 11, "epochs": 2, "held_out": 0.2}


def rows_and_weights(history):
    rows = [{name: value for name, value in row.items() if name not in TIMES} for row in history.rounds]
    return rows, history.initial, weights_hash(history.weights)


def test_the_server_is_asked_by_those_whom_simulated_time_would_have_ask_and_all_is_evaluated_alike(
    personal_file, owned
):
    data, settings = owned(7), {**SETTINGS, "strategy": "scaffold", "local_test": 0.2, "personalise": 1}
    data["id"] = np.array([f"ward-{name[:6]}" for name in data["id"]])  # a name that no real device could have
    alone = edgefl.simulate(personal_file, data, workers=1, **settings)
    served = edgefl.simulate(personal_file, data, engine="http", **settings)
    assert rows_and_weights(served) == rows_and_weights(alone)
    assert {row["clock"] for row in served.rounds} == {None}
    assert served.summary()["simulated_seconds"] is None


def test_for_a_device_that_declines_the_next_one_of_the_line_is_asked(plain_sgd_file, owned):
    data = owned(6)
    few = data["id"] == device_id(2)
    few[np.flatnonzero(few)[:1]] = False  # the one row that it keeps
    data = {name: array[~few] for name, array in data.items()}
    settings = {**SETTINGS, "held_out": 0, "rounds": 3, "cohort": 4, "evaluate_devices": 0}
    alone = edgefl.simulate(plain_sgd_file, data, workers=1, **settings)
    assert sum(row["outcomes"].get("declined", 0) for row in alone.rounds) > 0
    assert rows_and_weights(edgefl.simulate(plain_sgd_file, data, engine="http", **settings)) == rows_and_weights(alone)


def test_a_device_outwaits_what_a_server_believes_of_the_round_before(monkeypatch, tmp_path):
    waits = []

    class Asking:
        def __init__(self, *arguments, **options): ...

        def step(self, *, wait=0.0):
            waits.append(wait)

        def close(self): ...

    write_table(tmp_path / "devices", {"x": (np.zeros((8, 2)), np.dtype("f4"))}, np.arange(8))
    begin = Begin("http://127.0.0.1:1", "people", "token", tmp_path / "states", tmp_path, 1, "auto", "0" * 32)
    devices = http_devices._Devices(begin)
    devices._device = Asking
    devices.ask(Ask("device-000000", Rows("devices", 0, 8), served._WAIT))
    assert waits == [served._WAIT]
    assert waits[0] > waiting._FRESH_SECONDS


@pytest.mark.parametrize("victim", ["server", pytest.param("devices", marks=pytest.mark.slow)])
def test_a_killed_process_is_one_clear_error_and_the_run_goes_on_to_the_same_bits(
    personal_file, owned, tmp_path, monkeypatch, victim
):
    data, settings = owned(5), {**SETTINGS, "strategy": "scaffold", "local_test": 0.2}
    kind = {"server": HttpServer, "devices": HttpFleet}[victim]
    started, begin = [], kind.__init__

    def noted(self, *arguments):
        begin(self, *arguments)
        started.append(self)

    def kill(row):
        if row["round"] == 2:
            found = started[0]._process if victim == "server" else started[0]._processes[0]._process
            os.kill(found.pid, signal.SIGKILL)

    with monkeypatch.context() as patch:
        patch.setattr(kind, "__init__", noted)
        message = {"server": r"simulation's server ended with -9\. ", "devices": r"devices ended with -9\. "}[victim]
        with pytest.raises(RuntimeFailure, match=message):
            edgefl.simulate(personal_file, data, engine="http", out=tmp_path / "run", on_round=kill, **settings)
    with pytest.raises(InvalidSettingError, match="engine is 'http' there, got 'local'"):
        edgefl.simulate(personal_file, data, out=tmp_path / "run", resume=True, **settings)
    told = []
    again = edgefl.simulate(
        personal_file, data, engine="http", out=tmp_path / "run", resume=True, on_round=told.append, **settings
    )
    assert [row["round"] for row in told][-2:] == [3, 4]  # and those that were not kept before the kill
    assert rows_and_weights(again) == rows_and_weights(edgefl.simulate(personal_file, data, workers=1, **settings))
    assert not (tmp_path / "run" / "served").exists()


def processes_of(folder):
    """The processes whose command line names a folder."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = place.read_bytes()
        except OSError:
            continue
        if str(folder).encode() in words:
            found.append(int(place.parent.name))
    return found


@pytest.mark.slow
def test_after_a_kill_nothing_goes_on_alone_and_the_same_line_with_resume_ends_with_the_same_bits(
    federated_file, owned, tmp_path
):
    data, folder = owned(5), tmp_path / "run"
    np.savez(tmp_path / "data.npz", **data)
    command = [
        *(sys.executable, "-m", "edgefl.cli.main", "simulate", federated_file, "--data", tmp_path / "data.npz"),
        *("--partition", "natural-id", "--rounds", 30, "--cohort", 3, "--strategy", "scaffold", "--seed", 11),
        *("--evaluate-every", 0, "--engine", "http", "--quiet", "-o", folder),
    ]
    words = list(map(str, command))
    killed = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while not ((folder / "rounds.jsonl").exists() and (folder / "rounds.jsonl").read_text().count("\n") >= 2):
        assert killed.poll() is None, killed.stderr.read()
        time.sleep(0.005)
    killed.kill()
    killed.communicate()
    while processes_of(folder):  # they find out by themselves
        time.sleep(0.05)
    again = subprocess.run([*words, "--resume"], capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    settings = {"partition": "natural-id", "rounds": 30, "cohort": 3, "strategy": "scaffold", "seed": 11}
    alone = edgefl.simulate(federated_file, data, workers=1, evaluate_every=0, **settings)
    assert weights_hash(np.load(folder / "weights.npy")) == weights_hash(alone.weights)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"engine": "http", "pace": Steady(drop_out=0.1)}, "time and devices are real"),
        ({"engine": "http", "profile": "pi4"}, "time and devices are real"),
        ({"engine": "htp"}, "Did you mean http"),
        ({"ray_address": "auto"}, "no meaning with the engine local"),
    ],
)
def test_what_an_engine_cannot_do_is_refused(plain_sgd_file, owned, more, message):
    with pytest.raises(InvalidSettingError, match=message):
        edgefl.simulate(plain_sgd_file, owned(4), **SETTINGS, **more)


def test_a_device_that_is_in_one_process_and_then_in_another_is_not_taken_for_two(plain_sgd_file, owned, monkeypatch):
    servers, begin, warnings = [], HttpServer.__init__, []

    def noted(self, *arguments):
        begin(self, *arguments)
        servers.append(self)

    monkeypatch.setattr(HttpServer, "__init__", noted)
    settings = {**SETTINGS, "rounds": 12, "cohort": 6, "held_out": 0, "evaluate_devices": 0, "epochs": 1}
    edgefl.simulate(
        plain_sgd_file,
        owned(6),
        engine="http",
        workers=2,
        on_round=lambda row: warnings.extend(servers[0]._json("GET", "/v1/runs")["warnings"]),
        **settings,
    )
    assert warnings == []
