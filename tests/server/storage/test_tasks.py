from __future__ import annotations

from collections.abc import Callable

import pytest

from edgefl.wire.messages import Correction, Reason, TaskKind, Weighting
from edgefl_server.aggregation import task_seed
from edgefl_server.storage import (
    NotWantedError,
    UnknownTaskError,
    authenticate,
    close_due_rounds,
    enrol,
    fetching_run,
    invite,
    look_for_tasks,
    next_task,
    renew_lease,
    run_status,
    stop_run,
    tell_capabilities,
    work_for,
)
from edgefl_server.storage.sessions import Session
from edgefl_server.storage.tables import VersionRow
from fake_device import Identity


@pytest.fixture(params=["sqlite", "postgresql"])
def kind_of_database(request: pytest.FixtureRequest) -> str:
    """What is promised here holds with each."""
    return str(request.param)


def active_runs(fleet, population: str) -> int:
    return work_for(fleet.state, population)[1]


def test_a_device_gets_its_open_task_again(fleet) -> None:
    (device,) = fleet.add_devices(1)
    run = fleet.create_run(target=1, learning_rate=0.25, epochs=3, codec="float16", clip_norm=2.0)
    first = fleet.task(device)
    assert fleet.task(device) == first
    status = run_status(fleet.state, run)
    assert first.run == run
    assert (first.cohort, first.epochs, first.learning_rate, first.codec_of("delta"), first.clip_norm) == (
        1,
        3,
        0.25,
        "float16",
        2.0,
    )
    assert first.seed == task_seed(7, 1, device.device)
    assert first.model_hash == status["model_hash"]
    assert first.base_weights_hash == status["initial_weights_hash"]
    assert first.deadline_seconds == 3600  # twelve leases


def test_a_task_says_which_version_cohort_and_fold_it_belongs_to(fleet) -> None:
    (device,) = fleet.add_devices(1)
    fleet.create_run(target=1, minimum=1)
    for number in (1, 2):
        task = fleet.finish(device)
        assert (task.schedule, task.version, task.cohort, task.fold) == ("synchronous", number - 1, number, number)
        assert (task.minimum_cohort, task.session, task.payloads) == (1, "", ())
        fleet.fold()


@pytest.mark.parametrize(
    ("strategy", "weighting", "sections"),
    [
        ({"strategy": "fedavg"}, Weighting.EXAMPLES, ["delta", "statistics"]),
        ({"strategy": "fedsgd"}, Weighting.EXAMPLES, ["gradient"]),
        ({"strategy": "scaffold"}, Weighting.UNIFORM, ["delta", "statistics", "control"]),
        ({"strategy": "feddyn", "mu": 0.1}, Weighting.UNIFORM, ["delta", "statistics"]),
    ],
)
def test_a_task_says_what_its_device_counts_for_and_how_each_section_is_written(
    fleet, strategy, weighting, sections
) -> None:
    (device,) = fleet.add_devices(1)
    fleet.create_run(target=1, codec="float16", **strategy)
    task = fleet.task(device)
    assert task.weighting is weighting
    assert sorted(each.section for each in task.codecs) == sorted(sections)
    assert {each.codec for each in task.codecs} == {"float16"}
    assert len({each.seed for each in task.codecs}) == len(sections)  # no two sections draw the same


def test_a_device_gets_no_task_that_it_cannot_do_and_the_operator_is_told(fleet) -> None:
    able, unable = fleet.add_devices(2)
    tell_capabilities(fleet.state, unable, {"kinds": ["train"]})
    run = fleet.create_run(target=1, strategy="fedsgd")
    assert next_task(fleet.state, unable) is None
    (told,) = run_status(fleet.state, run)["troubles"]
    assert f"device {unable.device[:8]} lacks 'gradient' among its kinds" in told
    assert next_task(fleet.state, able) is not None

    # It gets what it can do of other runs, and of this one once it can.
    other = fleet.create_run(target=1)
    assert fleet.task(unable).run == other


def test_what_a_device_says_later_counts_at_once(fleet) -> None:
    (device,) = fleet.add_devices(1)
    stale = authenticate(fleet.state, device.device, Identity.number(0).secret)
    tell_capabilities(fleet.state, device, {"kinds": ["evaluate"]})
    tell_capabilities(fleet.state, stale, {"kinds": ["evaluate"]})
    fleet.create_run(target=1)
    assert next_task(fleet.state, device) is None
    tell_capabilities(fleet.state, device, {"kinds": ["evaluate", "train"]})
    assert next_task(fleet.state, stale) is not None  # whoever holds a row that was read before


def test_devices_of_another_population_get_nothing(fleet) -> None:
    fleet.create_run()
    identity = Identity.number(99)
    enrol(fleet.state, invite(fleet.state, "others"), identity.device, identity.secret_hash, "others", {})
    stranger = authenticate(fleet.state, identity.device, identity.secret)
    assert next_task(fleet.state, stranger) is None
    assert active_runs(fleet, "others") == 0
    assert active_runs(fleet, "people") == 1


def test_no_more_devices_than_the_target_get_work(fleet) -> None:
    devices = fleet.add_devices(3)
    fleet.create_run(target=2)
    assert [next_task(fleet.state, device) is not None for device in devices] == [True, True, False]


def test_several_devices_are_handed_their_tasks_in_one_transaction_as_one_after_the_other(
    make_fleet: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone, together = make_fleet("alone"), make_fleet("together")
    for fleet in (alone, together):
        fleet.add_devices(4)
        fleet.create_run(target=3)
    one_by_one = [next_task(alone.state, device) for device in alone.devices]
    commits: list[Session] = []
    monkeypatch.setattr(Session, "commit", lambda self, commit=Session.commit: (commits.append(self), commit(self)))
    devices = [*together.devices, together.devices[0]]  # which asks twice
    found = look_for_tasks(together.state, devices)
    assert len(commits) == 1
    assert [each.has_task for each in found] == [True, True, True, False, True]
    tasks = [each.task for each in found]
    assert [task and task.seed for task in tasks[:4]] == [task and task.seed for task in one_by_one]
    assert tasks[4] == tasks[0]
    assert [next_task(together.state, device) for device in together.devices] == tasks[:4]


def test_the_deadline_counts_down_for_a_device_that_asks_again(fleet) -> None:
    (device,) = fleet.add_devices(1)
    fleet.create_run(target=1, deadline_seconds=100)
    assert fleet.task(device).deadline_seconds == 100
    fleet.clock.now += 40
    assert fleet.task(device).deadline_seconds == 60


def test_a_silent_device_loses_its_place_only_to_another(fleet) -> None:
    first, second = fleet.add_devices(2)
    fleet.create_run(target=1, lease_seconds=30)
    task = fleet.task(first)
    fleet.clock.now += 31
    assert fleet.task(first).task_id == task.task_id
    assert next_task(fleet.state, second) is None
    fleet.clock.now += 31
    assert next_task(fleet.state, second) is not None
    assert renew_lease(fleet.state, first.device, task.task_id) is None
    assert next_task(fleet.state, first) is None


def test_a_lease_is_renewed_for_its_own_device_only(fleet) -> None:
    first, second = fleet.add_devices(2)
    fleet.create_run(target=1, lease_seconds=30)
    task = fleet.task(first)
    assert renew_lease(fleet.state, first.device, task.task_id) == 30
    with pytest.raises(UnknownTaskError):
        renew_lease(fleet.state, second.device, task.task_id)
    with pytest.raises(UnknownTaskError):
        renew_lease(fleet.state, first.device, "nothing")


def test_only_what_an_open_task_names_may_be_fetched(fleet) -> None:
    first, second = fleet.add_devices(2)
    fleet.create_run(target=1)
    task = fleet.task(first)
    for digest in (task.model_hash, task.base_weights_hash):
        assert fetching_run(fleet.state, first.device, digest)
        assert not fetching_run(fleet.state, second.device, digest)
    fleet.finish(first)
    for digest in (task.model_hash, task.base_weights_hash):
        assert not fetching_run(fleet.state, first.device, digest)


def test_a_device_serves_the_older_of_two_runs_first_and_then_the_other(fleet) -> None:
    (device,) = fleet.add_devices(1)
    older = fleet.create_run(target=1, rounds=1)
    fleet.clock.now += 1
    newer = fleet.create_run(target=1, rounds=1)
    assert fleet.finish(device).run == older
    assert fleet.finish(device).run == newer
    fleet.fold()
    assert active_runs(fleet, "people") == 0


def test_many_runs_of_a_population_share_its_devices_and_none_waits_for_the_end_of_another(fleet) -> None:
    devices = fleet.add_devices(3)
    older = fleet.create_run(target=2, rounds=2)
    fleet.clock.now += 1
    newer = fleet.create_run(target=2, rounds=2)
    # In turn: the run that has been handed out the fewest tasks comes first, and among equals the older one.
    assert [fleet.task(device).run for device in devices] == [older, newer, older]
    # An open task comes before any other work.
    assert [fleet.task(device).run for device in devices] == [older, newer, older]
    # While the older run waits for its second outcome, the device that has finished goes on with the newer one.
    fleet.finish(devices[0])
    assert fleet.task(devices[0]).run == newer
    fleet.finish(devices[1])
    fleet.finish(devices[2])
    fleet.finish(devices[0])
    fleet.fold()
    assert [fleet.task(device).cohort for device in devices] == [2, 2, 2]
    assert active_runs(fleet, "people") == 2


def test_a_fleet_as_large_as_the_target_works_for_two_runs_by_turns(fleet) -> None:
    devices = fleet.add_devices(2)
    runs = []
    for _ in range(2):
        runs.append(fleet.create_run(target=2, rounds=2))
        fleet.clock.now += 1
    served = []
    while active_runs(fleet, "people"):
        # Both ask again before the round that they finished is folded.
        served.append({fleet.finish(device).run for device in devices})
        more = [next_task(fleet.state, device) for device in devices]
        fleet.fold()
        if any(more):
            served.append({fleet.finish(device).run for device in devices})
            fleet.fold()
    assert served == [set(runs)] * 4


def test_a_device_that_renews_for_ever_loses_its_place_to_those_who_wait(fleet) -> None:
    hog, other = fleet.add_devices(2)
    run = fleet.create_run(target=1, lease_seconds=30, task_seconds=70)
    task = fleet.task(hog)
    leases = []
    for _ in range(7):
        leases.append(renew_lease(fleet.state, hog.device, task.task_id))
        assert close_due_rounds(fleet.state) is False
        assert next_task(fleet.state, other) is None
        fleet.clock.now += 10
    assert leases == [30, 30, 30, 30, 30, 20, 10]
    assert close_due_rounds(fleet.state) is True
    assert renew_lease(fleet.state, hog.device, task.task_id) is None
    assert next_task(fleet.state, hog) is None
    with pytest.raises(NotWantedError, match="longer than a task of this run may") as refused:
        fleet.accept(hog, fleet.outcome(task))
    assert refused.value.code == "stale"
    entry = run_status(fleet.state, run)["history"][0]
    assert (entry["outcomes"]["failed"], entry["reasons"]) == (1, {"out_of_time": 1})
    fleet.finish(other)
    fleet.fold()
    assert run_status(fleet.state, run)["history"][0]["state"] == "done"
    # Also in the next round others come first, for as long as it held the place for nothing; then twice as long.
    for rest in (70, 140):
        fleet.clock.now += rest - 1
        assert next_task(fleet.state, hog) is None
        fleet.clock.now += 1
        hogged = fleet.task(hog)
        while renew_lease(fleet.state, hog.device, hogged.task_id) is not None:
            fleet.clock.now += 10
        assert close_due_rounds(fleet.state) is True
        assert next_task(fleet.state, hog) is None


def test_a_device_that_was_away_for_longer_than_a_task_may_take_still_delivers(fleet) -> None:
    (device,) = fleet.add_devices(1)
    run = fleet.create_run(target=1, rounds=1, lease_seconds=30)
    task = fleet.task(device)
    fleet.clock.now += 100_000
    assert close_due_rounds(fleet.state) is False
    fleet.accept(device, fleet.outcome(task))
    fleet.fold()
    assert run_status(fleet.state, run)["state"] == "done"


def test_a_task_says_the_smaller_of_what_is_left_of_its_own_time_and_of_the_rounds(fleet) -> None:
    first, second = fleet.add_devices(2)
    fleet.create_run(target=2, deadline_seconds=100, task_seconds=60)
    assert fleet.task(first).deadline_seconds == 60
    fleet.clock.now += 50
    assert (fleet.task(first).deadline_seconds, fleet.task(second).deadline_seconds) == (10, 50)


def test_a_device_that_declined_makes_room_and_is_asked_again_in_the_next_round(fleet) -> None:
    first, second = fleet.add_devices(2)
    fleet.create_run(target=1, rounds=2, max_failures=5)
    fleet.give_up(first, Reason.NO_DATA)
    assert next_task(fleet.state, first) is None
    fleet.finish(second)
    fleet.fold()
    assert fleet.task(first).cohort == 2


def test_no_work_is_handed_out_for_a_stopped_run(fleet) -> None:
    (device,) = fleet.add_devices(1)
    run = fleet.create_run(target=1)
    task = fleet.task(device)
    assert stop_run(fleet.state, run) is True
    assert stop_run(fleet.state, run) is False
    assert next_task(fleet.state, device) is None
    assert renew_lease(fleet.state, device.device, task.task_id) is None
    assert not fetching_run(fleet.state, device.device, task.model_hash)


def test_a_task_says_what_the_strategy_asks_of_the_device(fleet) -> None:
    (device,) = fleet.add_devices(1)
    asked = {}
    for name, more in (("fedavg", {}), ("fedprox", {"mu": 0.5}), ("feddyn", {"mu": 0.25}), ("fedsgd", {})):
        run = fleet.create_run(target=1, strategy=name, **more)
        task = fleet.task(device)
        asked[name] = (task.kind, task.mu, task.correction, task.extra_vectors)
        stop_run(fleet.state, run)
    assert asked == {
        "fedavg": (TaskKind.TRAIN, 0.0, Correction.NONE, ()),
        "fedprox": (TaskKind.TRAIN, 0.5, Correction.NONE, ()),
        "feddyn": (TaskKind.TRAIN, 0.25, Correction.FEDDYN, ()),
        "fedsgd": (TaskKind.GRADIENT, 0.0, Correction.NONE, ()),
    }


def test_scaffolds_control_variate_is_open_to_a_device_whose_task_names_it_and_nobody_else(fleet) -> None:
    first, second = fleet.add_devices(2)
    fleet.create_run(target=1, strategy="scaffold")
    task = fleet.task(first)
    ((name, digest, size),) = task.extra_vectors
    assert (name, task.correction) == ("control", Correction.SCAFFOLD)
    assert fleet.state.weights.get(digest) == bytes(size)
    assert size == 4 * 16
    assert fetching_run(fleet.state, first.device, digest)
    assert not fetching_run(fleet.state, second.device, digest)
    fleet.finish(first)
    fleet.fold()
    ((_, later, _),) = fleet.task(first).extra_vectors
    assert later != digest
    assert fetching_run(fleet.state, first.device, later)
    assert not fetching_run(fleet.state, first.device, digest)


def test_what_feddyn_keeps_on_the_server_is_open_to_no_device(fleet) -> None:
    (device,) = fleet.add_devices(1)
    run = fleet.create_run(target=1, strategy="feddyn", mu=0.1)
    fleet.task(device)
    with fleet.state.database.read() as session:
        (digest,) = session.get_one(VersionRow, (run, 0)).slots.values()
    assert not fetching_run(fleet.state, device.device, digest)


def test_a_task_names_the_devices_latest_folded_task_and_no_discarded_one(fleet) -> None:
    first, second = fleet.add_devices(2)
    fleet.create_run(target=1, max_failures=1, over_selection=2, rounds=9)
    assert fleet.task(first).continues == ""
    folded = fleet.finish(first)
    fleet.fold()
    assert fleet.task(first).continues == folded.task_id
    assert fleet.task(second).continues == ""
    fleet.give_up(second, Reason.NO_DATA)  # the round fails
    assert fleet.task(first).continues == folded.task_id


def test_an_outcome_of_a_failed_round_is_continued_by_no_task(fleet) -> None:
    first, second = fleet.add_devices(2)
    fleet.create_run(target=2, max_failures=1, rounds=9)
    fleet.task(second)
    fleet.finish(first)
    fleet.give_up(second, Reason.NO_DATA)
    assert fleet.task(first).cohort == 2
    assert fleet.task(first).continues == ""


def test_a_task_announces_what_its_downloads_measure(fleet) -> None:
    (device,) = fleet.add_devices(1)
    fleet.create_run(target=1, strategy="scaffold")
    task = fleet.task(device)
    assert task.model_bytes == len(fleet.state.models.get(task.model_hash)) > 0
    assert task.base_weights_bytes == len(fleet.state.weights.get(task.base_weights_hash)) > 0
    (control,) = task.extra_vectors
    assert control.bytes == len(fleet.state.weights.get(control.sha256)) > 0
