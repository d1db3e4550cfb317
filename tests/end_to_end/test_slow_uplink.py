"""An outcome of 3.4 MB over 25 kB/s, to a real server: it arrives at the first attempt, or goes on after each cut."""

from __future__ import annotations

import sys
import threading

import pytest

from bad_network import BadNetwork
from edgefl_device_runtime.agent import Device
from moving_trainer import MovingTrainer, model_of, rows_of

ELEMENTS = 850_000


def device_behind(network, fleet, tmp_path, report):
    return Device(
        f"http://127.0.0.1:{network.port}",
        "kitchen",
        rows_of(40),
        tmp_path / "device",
        token=fleet.token("kitchen"),
        load_trainer=MovingTrainer,
        report=report,
    )


def sends_over(fleet, tmp_path, **network):
    """A device's whole part in a run of one round; the bytes of the outcome and the network."""
    fleet.start_server()
    run = fleet.create_run(model_of(tmp_path, ELEMENTS), "kitchen", rounds=1, target=1, lease_seconds=30, seed=1)
    bad = BadNetwork(fleet.port, **network)
    device = device_behind(bad, fleet, tmp_path, lambda line: print(line, file=sys.stderr))  # noqa: T201
    try:
        summary = device.run(until_idle=True)
    finally:
        device.close()
        bad.close()
    status = fleet.status(run)
    assert summary.tasks == {"accepted": 1}
    assert status["state"] == "done"
    assert status["history"][0]["outcomes"]["folded"] == 1
    assert threading.active_count() < 20
    return summary, bad


def test_an_outcome_of_3_4_mb_arrives_through_a_network_that_cuts_again_and_again(fleet, tmp_path):
    """The same in a few seconds: 1 MB/s, cut every second."""
    summary, bad = sends_over(fleet, tmp_path, rate=1_000_000, cut_every=1.0)
    assert bad.cuts >= 2
    assert bad.up <= 1.3 * 4 * ELEMENTS
    assert summary.bytes_up <= 1.3 * 4 * ELEMENTS


def test_a_network_that_cuts_connections_on_which_nothing_is_said_is_not_taken_for_a_server_that_is_away(
    fleet, tmp_path
):
    """A device would hold its polls for longer than the network does; it hears all the same that there is no work."""
    fleet.start_server()
    bad = BadNetwork(fleet.port, cut_every=0.5)
    told: list[str] = []
    device = device_behind(bad, fleet, tmp_path, told.append)
    try:
        assert [device.step(wait=25.0) for _ in range(3)] == [None] * 3
        assert device.active_runs == 0
    finally:
        device.close()
        bad.close()
    assert bad.cuts >= 1
    assert not [line for line in told if "cannot be reached" in line]


@pytest.mark.slow
def test_at_25_kilobytes_a_second_it_arrives_at_the_first_attempt(fleet, tmp_path):
    summary, bad = sends_over(fleet, tmp_path, rate=25_000)
    assert bad.up <= 1.01 * 4 * ELEMENTS
    assert summary.bytes_up <= 1.01 * 4 * ELEMENTS


@pytest.mark.slow
def test_at_25_kilobytes_a_second_with_the_connection_cut_every_20_seconds_it_arrives_with_little_more(fleet, tmp_path):
    summary, bad = sends_over(fleet, tmp_path, rate=25_000, cut_every=20.0)
    assert bad.cuts >= 5
    assert bad.up <= 1.3 * 4 * ELEMENTS
    assert summary.bytes_up <= 1.3 * 4 * ELEMENTS
