"""One seeded run of every strategy ends, whoever is killed, on the weights that were recorded once; to the last bit."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from edgefl_server.aggregation.strategies import STRATEGIES
from recorded_runs import CASES, ROUNDS, perform, record_file

KILLS = (0, "server", 1, "server")
FAST = ("scaffold",)
"""A run with what devices remember; all others are slow tests."""


def recorded(case, folder):
    """The hashes of this architecture; those of an undisturbed run where nobody recorded it."""
    spec = importlib.util.spec_from_file_location("golden_set", Path(__file__).parents[1] / "golden" / "golden_set.py")
    golden_set = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(golden_set)
    file = record_file(golden_set.architecture())
    known = json.loads(file.read_text()) if file.exists() else {}
    return known[case] if case in known else perform(folder, case)


def test_every_strategy_is_among_the_runs():
    # Those of a buffer fold in the order of acceptance, which kills change: they are replayed from their logs.
    buffered = {"fedasync", "fedbuff"}
    assert {settings.get("strategy", "fedavg") for _, settings in CASES.values()} == {*STRATEGIES.names()} - buffered


@pytest.mark.parametrize("case", [pytest.param(case, marks=[] if case in FAST else pytest.mark.slow) for case in CASES])
def test_kills_of_devices_and_server_leave_the_weights_that_were_recorded(case, tmp_path):
    expected = recorded(case, tmp_path / "undisturbed")
    assert len(set(expected)) == len(expected) == ROUNDS
    assert perform(tmp_path / "disturbed", case, KILLS) == expected
