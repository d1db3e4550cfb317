"""Who is told how a simulation goes: a terminal, a log or a notebook, or nobody."""

from __future__ import annotations

import io
import sys

import edgefl
from edgefl_simulation.watching import Lines, Silent, Terminal, watcher_for


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
    assert "accuracy" in "".join(lines[11:])
    assert "Round" not in "".join(lines[11:])
    assert max(map(len, lines)) <= 80
