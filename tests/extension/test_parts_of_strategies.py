"""Rules, pre-aggregators and server optimizers from outside are chosen and checked as edgefl's own are."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
TOYS = {
    "edgefl.rules": {"shortest": "toy_rule:Shortest", "none": "toy_rule:Halved"},
    "edgefl.pre_aggregators": {"halved": "toy_rule:Halved"},
    "edgefl.server_optimizers": {"ahead": "toy_rule:Ahead"},
}
PROGRAM = """
import json
import numpy as np
from edgefl.errors import EdgeflError
from edgefl_server.aggregation import Cohort, RunSettings, Update, Updates, run_settings, strategy_for

values = dict(rule="shortest", quiet=2, pre_aggregation="halved", server_optimizer="ahead")
strategy = strategy_for(RunSettings.of(rounds=1, target=4, **values))
updates = Updates.of([Update(f"t{i}", 5, {"delta": np.full(3, i, np.float32)}) for i in (1, 2, 9)])
state, figures = strategy.apply(strategy.init(np.zeros(3, np.float32), 3), updates, Cohort())
try:
    RunSettings.of(rounds=1, target=1, **values)
    refused = ""
except EdgeflError as error:
    refused = str(error)
print(json.dumps([state.weights.tolist(), figures["halved"], refused, [each.name for each in run_settings()]]))
"""


def test_parts_from_outside_work_with_a_strategy_of_edgefl(install) -> None:
    install("toys", TOYS, HERE / "toy_rule.py")
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    weights, halved, refused, options = json.loads(done.stdout)
    assert weights == [1.5, 1.5, 1.5]  # the mean of 1 and 2, halved and doubled
    assert halved == 3
    assert "needs 2 updates a fold" in refused
    assert "quiet" in options
    assert "'none' (toy_rule:Halved) of toys is left out: it is no dataclass that is a Rule." in done.stderr
