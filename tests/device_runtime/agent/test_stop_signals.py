"""SIGTERM and Ctrl-C where an exception does not get out, or comes out as another one."""

from __future__ import annotations

import os
import signal
import time

import pytest

from edgefl.errors import MissingDependencyError
from edgefl.wire.messages import OutcomeStatus, Reason
from edgefl_device_runtime.agent.stopping import Stop, StopSignals

NUMBERS = (signal.SIGTERM, signal.SIGINT)


@pytest.fixture(autouse=True)
def _own_handlers():
    before = {number: signal.getsignal(number) for number in (*NUMBERS, signal.SIGALRM)}
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    for number, handler in before.items():
        signal.signal(number, handler)


def wait_for_signal(number):
    os.kill(os.getpid(), number)
    time.sleep(30)


def test_a_stop_that_somebody_swallows_comes_again_until_it_gets_out():
    swallowed = []

    def work(signals):
        with signals:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
                try:
                    wait_for_signal(number)
                except Stop:
                    swallowed.append(number)
            time.sleep(30)

    signals = StopSignals()
    with pytest.raises(Stop):
        work(signals)
    assert len(swallowed) == 3
    assert signals.asked


@pytest.mark.parametrize("number", NUMBERS)
def test_a_stop_that_got_out_does_not_come_again_and_later_signals_do_nothing(number):
    with pytest.raises(Stop), StopSignals():
        wait_for_signal(number)
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    for each in (*NUMBERS, signal.SIGALRM):
        os.kill(os.getpid(), each)
    time.sleep(0.01)


@pytest.mark.parametrize("made_of_it", [SystemError("error return without exception set"), MissingDependencyError("x")])
def test_an_error_that_a_binding_makes_of_a_stop_becomes_no_outcome(rig, made_of_it):
    signals = StopSignals()

    def fail():
        signals.asked = True
        raise made_of_it

    rig.server.tasks = [rig.task()]
    rig.trainer.during_step = fail
    device = rig.device(check=signals.check)
    with pytest.raises((Stop, MissingDependencyError)):
        device.step()
    device.close()
    outcome = rig.server.decoded("r-1-d")
    assert (outcome.status, outcome.reason) == (OutcomeStatus.DECLINED, Reason.NOT_READY)


def test_a_stop_that_was_swallowed_ends_the_training_after_the_step(rig):
    signals = StopSignals()
    rig.server.tasks = [rig.task()]
    steps = []

    def swallow():
        steps.append(1)
        signals.asked = True

    rig.trainer.during_step = swallow
    with pytest.raises(Stop):
        rig.device(check=signals.check).step()
    assert len(steps) == 1


def test_an_outcome_is_kept_or_given_back_and_never_both(rig, monkeypatch):
    rig.server.tasks = [rig.task()]
    device = rig.device()
    keep = device._keep

    def keep_and_stop(message):
        keep(message)
        raise Stop

    monkeypatch.setattr(device, "_keep", keep_and_stop)
    with pytest.raises(Stop):
        device.step()
    device.close()
    assert rig.server.outcomes == {}
    assert rig.lines[-1] == "One finished task is kept, and sent at the next start."
    rig.device().step()
    assert rig.server.decoded("r-1-d").status == OutcomeStatus.DONE
