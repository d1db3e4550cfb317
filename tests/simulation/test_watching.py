"""Who is told how a simulation goes: a terminal, a log or a notebook, or nobody."""

from __future__ import annotations

import io
import sys

import numpy as np
from rich.console import Console

import edgefl
from edgefl.model_file import ModelFile
from edgefl_simulation.history import History
from edgefl_simulation.watching import Lines, Silent, Terminal, _values, table, watcher_for

NAMES = ("loss", "accuracy")


class Stream(io.StringIO):
    """Standard error of a terminal."""

    def isatty(self):
        return True


def test_without_a_terminal_nothing_is_said_unless_asked_and_then_in_lines(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())  # as a notebook's, whose cells are no terminal
    assert type(watcher_for(None)) is Silent
    assert type(watcher_for(False)) is Silent
    assert type(watcher_for(True)) is Lines
    monkeypatch.setattr(sys, "stderr", Stream())
    assert type(watcher_for(None)) is Terminal
    assert type(watcher_for(False)) is Silent
    monkeypatch.setattr(sys, "stderr", None)
    assert type(watcher_for(None)) is Silent


def test_lines_are_no_more_than_tenths_and_a_table_ends_them(plain_sgd_file, owned_once, monkeypatch):
    told = io.StringIO()
    monkeypatch.setattr(sys, "stderr", told)
    settings = {"devices": 6, "rounds": 30, "cohort": 2, "workers": 1, "evaluate_devices": 0, "evaluate_every": 3}
    edgefl.simulate(plain_sgd_file, owned_once, verbose=True, **settings)
    lines = told.getvalue().splitlines()
    assert lines[0] == "6 devices, 30 rounds"
    assert [line.partition(":")[0] for line in lines[1:11]] == [f"Round {3 * tenth} of 30" for tenth in range(1, 11)]
    assert lines[1].startswith("Round 3 of 30: loss ")
    assert lines[11].startswith("12 of 30 rounds shown; ")
    assert "accuracy" in "".join(lines[11:])
    assert "Round" not in "".join(lines[11:])
    assert max(map(len, lines)) <= 80


def test_figures_that_are_not_of_held_out_rows_say_of_what_they_are_and_stand_in_columns_of_their_own(plain_sgd_file):
    manifest = ModelFile(plain_sgd_file.read_bytes()).manifest
    training, spread = {"training": {"loss": 2.2442}}, {"federated": {"devices": 3, "loss": {"mean": 1.952}}}

    def shown(*rows, initial=None):
        rounds = [
            {"round": number, "clock": 1.0, "state": "done", "outcomes": {"done": 2}, **row}
            for number, row in enumerate(rows, start=1)
        ]
        history = History(manifest, np.zeros(1, np.float32), b"", rounds, initial or {})
        told = io.StringIO()
        Console(file=told, width=80).print(table(history))
        return told.getvalue(), history.told(), _values(rounds[0])

    evaluated = training | {"central": {"loss": 1.8695}}
    text, told, progress = shown(training, evaluated, initial={"central": {"loss": 2.3455}})
    assert "2.3455" in text
    assert "1.8695" in text
    assert "2.2442" not in text
    assert (told, progress) == ("loss 1.8695", "loss 2.244 in training")
    text, told, progress = shown(training | spread)
    assert "loss over devices" in text
    assert "1.9520" in text
    assert (told, progress) == ("loss 1.9520 over devices", "loss 1.952 over devices")
    text, told, _ = shown(training)
    assert "loss in training" in text
    assert told == "not evaluated; loss 2.2442 in training"


def test_a_loss_without_bounds_is_not_cut_off(plain_sgd_file):
    losses = (2.3455, 101281341.6, 63263967.6)
    rounds = [
        {"round": number, "clock": 1.0, "state": "done", "outcomes": {"done": 2}, "training": {}}
        | {"central": {"loss": loss, "accuracy": 0.5}, "federated": {name: {"worst_tenth": loss} for name in NAMES}}
        for number, loss in enumerate(losses, start=1)
    ]
    history = History(ModelFile(plain_sgd_file.read_bytes()).manifest, np.zeros(1, np.float32), b"", rounds)
    told = io.StringIO()
    Console(file=told, width=80).print(table(history))
    assert "…" not in told.getvalue()
    assert all(loss in told.getvalue() for loss in ("2.3455", "1.013e+08", "6.326e+07"))
    assert "loss 6.326e+07, accuracy 0.5000" in repr(history)
