"""The same updates give the same bits, for every strategy that a schedule takes, whatever arrives or crashes first."""

from __future__ import annotations

import pytest

from edgefl.errors import InvalidSettingError
from edgefl_server.aggregation import STRATEGIES, RunSettings, schedule_for
from edgefl_server.storage import fold_round, pending_folds, run_log, run_status

DEVICES, TARGET, FOLDS = 8, 4, 2
NEEDED = {"fedprox": {"mu": 0.1}, "feddyn": {"mu": 0.1}, "fednova": {}}


def taken(schedule):
    """The strategies of edgefl's own that go with a schedule."""
    for name in STRATEGIES.names():
        if not STRATEGIES.get(name).__module__.startswith("edgefl_server."):
            continue
        try:
            schedule_for(RunSettings.of(rounds=1, target=8, schedule=schedule, strategy=name, **NEEDED.get(name, {})))
        except InvalidSettingError:
            continue
        yield name


def weights(make_fleet, name, strategy, order, *, crashes=False, **settings):
    """The hash of the weights after two folds, to which outcomes came in an order."""
    fleet = make_fleet(name)
    devices = fleet.add_devices(DEVICES)
    given = {"target": TARGET, "rounds": FOLDS, "strategy": strategy, **NEEDED.get(strategy, {}), **settings}
    try:
        run = fleet.create_run(**given)
    except InvalidSettingError as error:
        pytest.skip(str(error))
    for turn in range(FOLDS):
        tasks = {index: fleet.task(devices[index]) for index in sorted(order)[turn * TARGET :][:TARGET]}
        for index in [each for each in order if each in tasks]:
            fleet.accept(devices[index], fleet.outcome(tasks[index]))
            if crashes:
                fleet.state.close()
                fleet = make_fleet(name, fleet.clock)
                fleet.accept(devices[index], fleet.outcome(tasks[index]))  # the answer was lost
        for found in pending_folds(fleet.state):
            assert fold_round(fleet.state, *found)
    status = run_status(fleet.state, run)
    assert status["state"] == "done"
    return status["weights_hash"], [len(each["updates"]) for each in run_log(fleet.state, run)["folds"]]


FORWARDS, BACKWARDS = list(range(DEVICES)), list(range(DEVICES - 1, -1, -1))


@pytest.mark.parametrize("strategy", taken("synchronous"))
def test_rounds_end_with_the_same_bits_in_any_order_of_arrival(make_fleet, strategy) -> None:
    first = weights(make_fleet, "a", strategy, FORWARDS)
    assert weights(make_fleet, "b", strategy, BACKWARDS, crashes=True) == first


@pytest.mark.parametrize("strategy", taken("buffered"))
def test_a_buffer_ends_with_the_same_bits_whenever_the_server_is_killed(make_fleet, strategy) -> None:
    settings = {"schedule": "buffered", "concurrency": DEVICES}
    first = weights(make_fleet, "a", strategy, BACKWARDS, **settings)
    assert weights(make_fleet, "b", strategy, BACKWARDS, crashes=True, **settings) == first
    assert first[1] == [TARGET] * FOLDS


def test_the_buffer_takes_every_strategy_but_those_that_presume_a_round() -> None:
    assert set(taken("synchronous")) - set(taken("buffered")) == {"scaffold", "feddyn"}
