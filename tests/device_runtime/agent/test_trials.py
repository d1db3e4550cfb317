"""A model that ends the process is tried twice, and then left alone."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from edgefl.errors import RuntimeFailure
from edgefl.wire.messages import OutcomeStatus, Reason
from edgefl_device_runtime.agent import trials
from edgefl_device_runtime.agent.trials import Trials

MODEL, OTHER = "a" * 64, "b" * 64
CRASH = """
import os, sys
from pathlib import Path
from edgefl_device_runtime.agent.trials import Trials
with Trials(Path(sys.argv[1])).trial(sys.argv[2], sys.argv[3]):
    os.kill(os.getpid(), 9)
"""


def crash(path, what="load", model=MODEL):
    done = subprocess.run([sys.executable, "-c", CRASH, str(path), what, model], check=False, timeout=60)
    assert done.returncode == -9


def tried(path, what="load", model=MODEL, **settings):
    with Trials(path, **settings).trial(what, model):
        pass


@pytest.mark.parametrize("what", ["load", "run"])
def test_a_model_that_ended_the_process_twice_is_left_alone_and_others_are_not(tmp_path, what):
    path = tmp_path / "trials.json"
    crash(path, what)
    crash(path, what)
    for _ in range(2):
        with pytest.raises(RuntimeFailure, match=f"attempts to {what} the model aaaaaaaaaaaa… ended the process"):
            tried(path, what)
        tried(path, what, OTHER)


def test_one_power_cut_costs_nothing(tmp_path):
    path = tmp_path / "trials.json"
    crash(path)
    tried(path)
    assert not path.exists()


NO_NUMBER = [f'{{"edgefl": "{trials.__version__}", "tried": {{"load {MODEL}": {entry}}}}}' for entry in (
    '{"attempts": 1e999, "at": 1e6}', '{"attempts": 2, "at": 1' + "0" * 400 + "}", "[]", "null")]  # fmt: skip


@pytest.mark.parametrize("content", NO_NUMBER)
def test_a_number_that_is_none_counts_as_never_tried(tmp_path, content):
    path = tmp_path / "trials.json"
    path.write_text(content)
    tried(path, now=lambda: 1e6)


@pytest.mark.parametrize("change", ["a day", "a clock that was set back", "another edgefl", "a damaged file"])
def test_a_model_is_not_left_alone_for_ever(tmp_path, monkeypatch, change):
    path = tmp_path / "trials.json"
    note = {"edgefl": trials.__version__, "tried": {f"load {MODEL}": {"attempts": 2, "at": 1e6}}}
    path.write_text(json.dumps(note))
    with pytest.raises(RuntimeFailure):
        tried(path, now=lambda: 1e6 + 80000)
    later = {"a day": 1e6 + 90000, "a clock that was set back": 1e6 - 90000}.get(change, 1e6)
    if change == "another edgefl":
        monkeypatch.setattr(trials, "__version__", "99")
    if change == "a damaged file":
        path.write_bytes(b'{"edgefl": [')
    tried(path, now=lambda: later)


def test_what_ends_with_an_exception_has_not_ended_the_process(tmp_path):
    path = tmp_path / "trials.json"
    seen = []

    def interrupt():
        seen.append(path.exists())
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), Trials(path).trial("load", MODEL):
        interrupt()
    assert seen == [True]
    assert not path.exists()


def test_warm_rounds_touch_no_disk(rig, monkeypatch):
    rig.server.tasks = [rig.task("a"), rig.task("b"), rig.task("c")]
    device = rig.device()
    device.step()
    monkeypatch.setattr(Trials, "_read", None)
    monkeypatch.setattr(Trials, "_write", None)
    assert [device.step().result for _ in range(2)] == ["accepted", "accepted"]


def test_the_note_is_gone_after_the_first_step(rig):
    path, seen = rig.folder / "state" / "trials.json", []
    rig.server.tasks = [rig.task()]
    rig.trainer.during_step = lambda: seen.append(path.exists())
    rig.device().step()
    assert seen == [True, False, False]


def test_a_task_of_a_model_that_ended_the_process_fails_without_loading_it(rig):
    path = rig.folder / "state" / "trials.json"
    path.parent.mkdir()
    for _ in range(2):
        crash(path, "load", rig.model_hash)
    rig.server.tasks = [rig.task()]
    rig.device().step()
    outcome = rig.server.decoded("r-1-d")
    assert (outcome.status, outcome.reason) == (OutcomeStatus.FAILED, Reason.UNSUPPORTED_MODEL)
    assert rig.loaded == []
    assert "ended the process" in rig.lines[0]


def test_a_full_disk_keeps_nobody_from_training(tmp_path):
    tried(tmp_path / "missing" / "trials.json")
