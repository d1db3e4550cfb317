"""What lies in the test's own files works through a real server and real devices, and no module was touched for it."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest

from edgefl.model_file import ModelFile
from real_processes import PATIENCE, Process, write_identity

HERE = Path(__file__).parent
TOYS = {
    "edgefl.strategies": {
        "median": "toy_strategy:Median",
        "broken": "no_such_module:Broken",
        "fedavg": "toy_strategy:Median",
    },
    "edgefl.codecs": {"byte": "toy_codec:BYTE"},
}
MODULES = [HERE / "toy_strategy.py", HERE / "toy_codec.py"]


@pytest.fixture
def with_toys(install, fleet):
    install("toys", TOYS, *MODULES)
    return fleet


def create(fleet, model, *options):
    place = ["--state", fleet.state, "--population", "kitchen", "--rounds", 1, "--format", "json"]
    fleet.token("kitchen")  # a run needs a population to which somebody was invited
    return Process.start("run", "create", model, *place, *options)


def test_a_strategy_with_a_hyperparameter_and_a_codec_from_outside(with_toys, write_data, mlp_file):
    fleet = with_toys
    fleet.start_server()
    options = ["--target", 3, "--strategy", "median", "--codec", "byte", "--seed", 5]
    plain, twice = (
        create(fleet, mlp_file, *options, "--stride", stride, "--name", f"by-{stride}").finish()["run"]
        for stride in (1, 2)
    )
    files = [write_data(f"d{i}", 20 + 9 * i, i) for i in range(3)]
    for i, file in enumerate(files):
        write_identity(fleet.folder / f"d{i}", i)
        fleet.start_device(f"d{i}", "kitchen", file)
    summaries = [device.finish() for device in fleet.devices]
    assert [summary["tasks"] for summary in summaries] == [{"accepted": 2}] * 3
    size = fleet.weights(plain).size
    assert all(summary["bytes_up"] / 2 < size + 2000 for summary in summaries)  # a quarter of float32

    first = ModelFile.read(mlp_file).initial_weights()
    moved = fleet.weights(plain) - first
    assert np.abs(moved).max() > 0
    np.testing.assert_allclose(fleet.weights(twice) - first, 2 * moved, rtol=1e-3, atol=1e-6)
    status = fleet.status(twice)
    assert (status["settings"]["strategy"], status["settings"]["stride"]) == ("median", 2)
    assert (status["settings"]["codec"], status["history"][0]["outcomes"]["folded"]) == ("byte", 3)

    # What does not fit is named once, where it is looked for, and the rest works.
    assert fleet.server is not None
    said = fleet.server.errors()
    assert said.count("'broken' (no_such_module:Broken) of toys is left out") == 1
    assert said.count("'fedavg' (toy_strategy:Median) of toys is left out") == 1


def test_its_hyperparameters_are_options_that_are_checked_like_all_others(with_toys, mlp_file):
    fleet = with_toys
    fleet.start_server()
    shown = Process.start("run", "create", "--help", COLUMNS="200")
    assert shown.child.wait(60) == 0
    text = shown.output()
    assert "--stride" in text
    assert "In multiples of the median" in text
    assert "or median" in " ".join(text.split("--strategy")[1].replace("│", " ").split())
    assert "auto, byte, drive, eden-2" in text.split("--codec")[1].split("\n")[0]
    for options, message in (
        (["--strategy", "median", "--stride", 10], "--stride expects a number from 1 to 9, got 10."),
        (["--strategy", "fedavg", "--stride", 1], "--stride has no meaning with --strategy fedavg."),
        (["--strategy", "medain"], "Did you mean median?"),
        (["--codec", "bite"], "--codec expects one of auto, byte, drive, eden-2"),
    ):
        refused = create(fleet, mlp_file, "--target", 1, *options)
        assert refused.child.wait(60) == 4
        error = json.loads(refused.errors().strip().splitlines()[-1])
        assert message in f"{error['message']} {error['hint']}"


def test_a_run_whose_strategy_is_gone_is_named_and_leaves_the_others_working(
    with_toys, write_data, mlp_file, monkeypatch
):
    fleet = with_toys
    fleet.start_server()
    gone = create(fleet, mlp_file, "--target", 1, "--strategy", "median").finish()["run"]
    assert fleet.server is not None
    fleet.server.terminate()
    _, rest = os.environ["PYTHONPATH"].split(os.pathsep, 1)
    monkeypatch.setenv("PYTHONPATH", rest)
    fleet.start_server()
    run = create(fleet, mlp_file, "--target", 1).finish()["run"]
    device = fleet.start_device("d", "kitchen", write_data("d", 20, 1))
    ends = time.monotonic() + PATIENCE
    while fleet.status(run)["state"] == "active" and time.monotonic() < ends:
        time.sleep(0.1)
    assert fleet.status(run)["state"] == "done"
    device.terminate()
    trouble = json.dumps(fleet.operator.get("/v1/runs"))
    assert gone in trouble
    assert "median" in trouble
