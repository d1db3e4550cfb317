"""A root device: asked in every round, waited for, no part of the mean, and what FLTrust judges all others by."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgefl.errors import InvalidSettingError
from edgefl.hashing import sha256, weights_hash
from edgefl.model_file import ModelFile
from edgefl.wire.messages import OutcomeStatus, Reason
from edgefl_server.aggregation import RunLog, replay
from edgefl_server.storage import (
    authenticate,
    enrol,
    invite,
    next_task,
    prune_rows,
    run_log,
    run_status,
    work_for,
)
from edgefl_server.storage.folding import close_due_rounds
from fake_device import Identity, outcome_for

WEIGHTS = 16
"""Elements of the weight section of the model of these tests."""


def create(fleet, root, **settings):
    return fleet.create_run(rule="fltrust", root_device=root.device, **{"target": 2, **settings})


def vector(fleet, digest):
    return np.frombuffer(fleet.state.weights.get(digest), "<f4")


def honest(fleet, task):
    """All devices go where the task's weights do, a bit of their own beside it."""
    section = task.section("delta", (0.5 + fleet.outcome(task).section("delta").vector()).astype(np.float32))
    outcome = fleet.outcome(task)
    return replace(outcome, sections=tuple(section if each.name == "delta" else each for each in outcome.sections))


def flipped(fleet, task, factor=-50.0):
    outcome = honest(fleet, task)
    section = task.section("delta", np.float32(factor) * outcome.section("delta").vector())
    return replace(outcome, sections=tuple(section if each.name == "delta" else each for each in outcome.sections))


def algorithm_2(updates, root):
    """Cao et al. 2021, Algorithm 2, lines 9 to 13, in float64."""
    g = root.astype(float)
    total, trust = np.zeros(g.size), 0.0
    for each in updates:
        x = each.astype(float)
        score = max(0.0, float(x @ g) / float(np.linalg.norm(x) * np.linalg.norm(g)))
        total, trust = total + score * np.linalg.norm(g) / np.linalg.norm(x) * x, trust + score
    return total / trust


def play(fleet, devices, root, bad=(), order=None):
    """One round, accepted in an order of places; what each of the devices sent, and what the root device did."""
    everybody = (*devices, root)
    tasks = [fleet.task(each) for each in everybody]
    outcomes = [(flipped if place in bad else honest)(fleet, task) for place, task in enumerate(tasks)]
    for place in range(len(everybody)) if order is None else order:
        fleet.accept(everybody[place], outcomes[place])
    assert fleet.fold()
    return outcomes[:-1], outcomes[-1]


def delta(outcome):
    return outcome.section("delta").vector()


@pytest.mark.parametrize(
    ("settings", "step"),
    [
        ({}, 1.0),
        ({"clip_norm": 1e3, "codec": "float16"}, 1.0),
        ({"strategy": "fedprox", "mu": 0.1, "server_optimizer": "sgd", "server_learning_rate": 0.5}, 0.5),
        ({"strategy": "fedavgm", "server_learning_rate": 2.0}, 2.0),
        ({"strategy": "fednova"}, 1.0),
        ({"pre_aggregation": "norm-bound"}, 1.0),  # which scales, and so changes nothing that the rule looks at
    ],
    ids=["fedavg", "clipped and coded", "fedprox and a rate", "momentum", "fednova", "norm-bound"],
)
def test_a_round_moves_the_weights_as_algorithm_2_says_with_attackers_in_a_majority(fleet, settings, step) -> None:
    *devices, root = fleet.add_devices(6)
    run = create(fleet, root, target=5, **settings)
    sent, own = play(fleet, devices, root, bad=(0, 2, 3))
    entry = run_status(fleet.state, run)["history"][0]
    moved = vector(fleet, entry["weights_hash"]) - vector(fleet, entry["base_weights_hash"])
    np.testing.assert_allclose(moved[:WEIGHTS], step * algorithm_2(map(delta, sent), delta(own)), rtol=2e-5, atol=2e-6)


def test_the_root_device_counts_for_nothing_else(fleet) -> None:
    *devices, root = fleet.add_devices(4)
    run = create(fleet, root, target=3, evaluate_every=0, max_weight_ratio=1)
    sent, own = play(fleet, devices, root)
    entry = run_status(fleet.state, run)["history"][0]
    assert (entry["outcomes"]["folded"], entry["diagnostics"]["outcomes"]) == (3, 3.0)
    rows = sorted(each.num_examples for each in sent)
    assert own.num_examples not in rows
    assert entry["num_examples"] == sum(min(each, rows[1]) for each in rows)  # the median is theirs
    changes = [each.section("statistics").vector().astype(float) for each in sent]
    moved = vector(fleet, entry["weights_hash"]) - vector(fleet, entry["base_weights_hash"])
    np.testing.assert_allclose(moved[WEIGHTS:], np.mean(changes, axis=0), rtol=1e-4, atol=1e-6)
    assert run_status(fleet.state, run)["devices_needed"] == 4


def test_order_and_restarts_change_no_bit(make_fleet) -> None:
    def trained(name, orders, restarts):
        fleet = make_fleet(name)
        fleet.add_devices(4)
        run = create(fleet, fleet.devices[1], target=3, rounds=2, server_optimizer="adam")
        for order in orders:
            root, devices = fleet.devices[1], [fleet.devices[place] for place in (0, 2, 3)]
            everybody = (*devices, root)
            for done, place in enumerate(order):
                fleet.accept(everybody[place], (flipped if place == 0 else honest)(fleet, fleet.task(everybody[place])))
                if restarts:
                    fleet.state.close()
                    devices_of = fleet.devices
                    fleet = make_fleet(name, fleet.clock)
                    fleet.devices = devices_of
                assert fleet.fold() == (done == 3)
        assert run_status(fleet.state, run)["state"] == "done"
        return run_status(fleet.state, run)["weights_hash"]

    bits = trained("a", [(0, 1, 2, 3), (0, 1, 2, 3)], restarts=False)
    assert trained("b", [(3, 2, 1, 0), (2, 3, 0, 1)], restarts=False) == bits
    assert trained("c", [(1, 0, 3, 2), (3, 0, 1, 2)], restarts=True) == bits


def test_it_is_asked_beside_the_cohort_and_takes_no_place(fleet) -> None:
    *devices, root = fleet.add_devices(4)
    run = create(fleet, root, selection="random")
    asked = [device for device in devices if next_task(fleet.state, device) is not None]
    assert len(asked) == 2
    assert work_for(fleet.state, "people") == (0, 1, frozenset({root.device}))  # it is looked for although none is free
    task = fleet.task(root)
    assert next_task(fleet.state, root).task_id == task.task_id
    assert run_status(fleet.state, run)["tasks_open"] == 2
    fleet.clock.now += 400  # all are silent: the places of the others may be taken
    others = [device for device in devices if device not in asked]
    fleet.clock.now += 400
    assert fleet.task(others[0]) is not None
    fleet.accept(root, honest(fleet, task))  # its own nobody has
    assert next_task(fleet.state, root) is None


def test_a_round_waits_for_it_and_takes_no_more_than_it_asked_meanwhile(fleet) -> None:
    *devices, root = fleet.add_devices(4)
    run = create(fleet, root)
    for device in devices[:2]:
        fleet.finish(device)
    fleet.clock.now += 1e6
    close_due_rounds(fleet.state)
    assert not fleet.fold()
    assert next_task(fleet.state, devices[2]) is None
    why = f"round 1 waits for its root device {root.device}, which is not at work on it"
    assert run_status(fleet.state, run)["warnings"] == [why]
    fleet.task(root)
    assert run_status(fleet.state, run)["warnings"] == []
    fleet.clock.now += 301  # it is silent
    assert run_status(fleet.state, run)["warnings"] == [why]
    fleet.finish(root)
    assert fleet.fold()
    assert run_status(fleet.state, run)["warnings"] == []
    assert run_status(fleet.state, run)["history"][0]["state"] == "done"


def test_a_deadline_without_it_fails_the_round_and_the_weights_stay(fleet) -> None:
    *devices, root = fleet.add_devices(4)
    run = create(fleet, root, deadline_seconds=60, minimum=1)
    before = run_status(fleet.state, run)["weights_hash"]
    fleet.finish(devices[0])
    fleet.task(root)
    fleet.clock.now += 61
    assert close_due_rounds(fleet.state)
    status = run_status(fleet.state, run)
    why = f"there is no update of the root device {root.device}: the deadline of 60 s passed"
    assert (status["history"][0]["state"], status["history"][0]["why"]) == ("failed", why)
    assert (status["round"], status["weights_hash"]) == (2, before)
    assert fleet.task(root).cohort == 2


def test_a_round_is_given_up_when_it_fails_again_and_again_and_not_when_it_is_busy(fleet) -> None:
    *_, root = fleet.add_devices(3)
    run = create(fleet, root, rounds=9)
    for _ in range(5):
        fleet.give_up(root, Reason.BUSY)
        fleet.clock.now += 100
    assert run_status(fleet.state, run)["round"] == 1
    fleet.give_up(root, Reason.OUT_OF_MEMORY, OutcomeStatus.FAILED)
    entry = run_status(fleet.state, run)["history"][0]
    assert entry["why"] == f"there is no update of the root device {root.device}: it failed or declined for good"
    assert entry["reasons"] == {"busy": 5, "out_of_memory": 1}


def test_an_update_of_zeros_fails_the_fold_with_the_reason(fleet) -> None:
    *devices, root = fleet.add_devices(3)
    run = create(fleet, root)
    for device in devices:
        fleet.finish(device)
    fleet.accept(root, flipped(fleet, fleet.task(root), 0.0))
    assert fleet.fold()
    entry = run_status(fleet.state, run)["history"][0]
    assert (entry["state"], entry["weights_hash"]) == ("failed", None)
    assert entry["why"] == "the update of the root device is all zeros: nobody can be judged by it."


@pytest.mark.parametrize("whose", ["root", "device"])
def test_a_damaged_update_of_it_fails_the_fold_and_one_of_a_device_is_left_out(fleet, whose) -> None:
    *devices, root = fleet.add_devices(4)
    run = create(fleet, root, target=3, minimum=2)
    outcomes = [(each, honest(fleet, fleet.task(each))) for each in (*devices, root)]
    for device, outcome in outcomes:
        fleet.accept(device, outcome)
    damaged = outcomes[-1 if whose == "root" else 0][1]
    path = fleet.state.outcomes.path(sha256(damaged.encode()))
    path.unlink()
    assert fleet.fold()
    entry = run_status(fleet.state, run)["history"][0]
    assert entry["state"] == ("failed" if whose == "root" else "done")
    assert ("there is no update of the root device: 1 accepted outcomes are damaged" in entry["why"]) == (
        whose == "root"
    )
    if whose == "device":
        moved = vector(fleet, entry["weights_hash"]) - vector(fleet, entry["base_weights_hash"])
        expected = algorithm_2([delta(each) for _, each in outcomes[1:3]], delta(outcomes[-1][1]))
        np.testing.assert_allclose(moved[:WEIGHTS], expected, rtol=2e-5, atol=2e-6)


def test_gradients_are_judged_alike(fleet) -> None:
    *devices, root = fleet.add_devices(3)
    run = create(fleet, root, strategy="fedsgd", server_learning_rate=0.1)
    tasks = [fleet.task(each) for each in (*devices, root)]
    outcomes = [fleet.outcome(each) for each in tasks]
    for place, sign in enumerate((1, -9, 1)):
        one = (sign * (0.5 + outcomes[place].section("gradient").vector())).astype(np.float32)
        section = tasks[place].section("gradient", one)
        fleet.accept((*devices, root)[place], replace(outcomes[place], sections=(section,)))
        outcomes[place] = one
    assert fleet.fold()
    entry = run_status(fleet.state, run)["history"][0]
    moved = vector(fleet, entry["weights_hash"]) - vector(fleet, entry["base_weights_hash"])
    expected = -0.1 * algorithm_2(outcomes[:2], outcomes[2])
    np.testing.assert_allclose(moved, expected, rtol=1e-4, atol=1e-6)


def test_a_log_with_it_makes_the_weights_again(fleet) -> None:
    *devices, root = fleet.add_devices(4)
    run = create(fleet, root, target=3, rounds=2)
    for _ in range(2):
        for device in (root, *devices):
            fleet.finish(device)
        assert fleet.fold()
    log = RunLog.from_json(run_log(fleet.state, run))
    file = ModelFile(fleet.state.models.get(log.model.sha256))

    def perform(task, vectors):
        return outcome_for(task, vectors["weights"], vectors["weights"].size - WEIGHTS)

    *_, last = replay(log, file.manifest, file.initial_weights(), perform)
    assert weights_hash(last.state.weights) == run_status(fleet.state, run)["weights_hash"]


def test_pruned_rows_leave_the_counts_of_a_round_as_they_were(fleet) -> None:
    *devices, root = fleet.add_devices(3)
    run = create(fleet, root, rounds=1)
    fleet.give_up(root, Reason.BUSY)
    fleet.clock.now += 100
    play(fleet, devices, root)
    before = run_status(fleet.state, run)["history"][0]
    fleet.clock.now += 1e8
    assert prune_rows(fleet.state) > 0
    after = run_status(fleet.state, run)["history"][0]
    assert (after["outcomes"], after["reasons"]) == (before["outcomes"], before["reasons"])
    assert (after["outcomes"]["folded"], after["outcomes"]["declined"]) == (2, 1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rule": "fltrust"}, "rule fltrust expects root_device"),
        ({"rule": "krum", "target": 9, "root_device": "it"}, "root_device has no meaning with rule krum"),
        ({"root_device": "it"}, "root_device has no meaning with rule as it is"),
        ({"rule": "fltrust", "root_device": "0" * 32}, "root_device expects the id of a device that is enrolled in"),
        (
            {"rule": "fltrust", "root_device": "elsewhere"},
            "expects the id of a device .* enrolled in people",
        ),
        ({"rule": "fltrust", "root_device": "it", "schedule": "buffered"}, "root_device does not go with schedule buf"),
        ({"rule": "fltrust", "root_device": "it", "strategy": "scaffold"}, "has no meaning with strategy scaffold"),
        ({"rule": "fltrust", "root_device": "it", "strategy": "feddyn", "mu": 0.1}, "no meaning with strategy feddyn"),
        ({"rule": "fltrust", "root_device": "it", "strategy": "qfedavg"}, "no meaning with strategy qfedavg"),
        ({"rule": "fltrust", "root_device": "it", "kind": "evaluate"}, "has no meaning with kind evaluate"),
        (
            {"rule": "fltrust", "root_device": "it", "weighting": "examples"},
            "weighting examples does not go with",
        ),
    ],
)
def test_what_cannot_be_is_refused(fleet, settings, message) -> None:
    root = fleet.add_devices(1)[0]
    other = Identity.number(99)
    enrol(fleet.state, invite(fleet.state, "others"), other.device, other.secret_hash, "others", {})
    names = {"it": root.device, "elsewhere": authenticate(fleet.state, other.device, other.secret).device}
    if "root_device" in settings:
        settings = {**settings, "root_device": names.get(settings["root_device"], settings["root_device"])}
    with pytest.raises(InvalidSettingError, match=message):
        fleet.create_run(**settings)
