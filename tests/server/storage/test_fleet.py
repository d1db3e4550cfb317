from __future__ import annotations

import hashlib
import threading
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa

from edgefl.errors import AuthenticationError, InvalidSettingError, StorageError
from edgefl_server.storage import (
    EnrolmentRefusedError,
    NotWantedError,
    Quota,
    ServerState,
    UnknownDeviceError,
    authenticate,
    block_device,
    enrol,
    folding,
    get_device,
    limit_device,
    list_devices,
    next_task,
    populations,
    remove_device,
    run_status,
    tag_device,
    unblock_device,
)
from edgefl_server.storage.seen import WRITTEN_SECONDS, Seen
from fake_device import Identity
from server.storage.test_state import _migrate


def ids(page: dict) -> list[str]:
    return [each["device"] for each in page["devices"]]


def test_ten_thousand_devices_come_page_by_page_each_once(fleet) -> None:
    names = sorted(hashlib.md5(str(number).encode()).hexdigest() for number in range(10_000))
    row = {"population": "people", "secret_hash": "", "capabilities": "{}", "created_at": 1.0, "tags": "[]"}
    with fleet.state.database.write() as session:
        columns = ", ".join(["device", *row])
        insert = sa.text(f"INSERT INTO devices ({columns}) VALUES (:{', :'.join(['device', *row])})")
        session.execute(insert, [{"device": name, **row} for name in names])
    found, pages, after = list[str](), 0, ""
    while after is not None:
        page = list_devices(fleet.state, 1000, after=after)
        found, pages, after = found + ids(page), pages + 1, page["next"]
    assert (found, pages) == (names, 10)  # none behind the last that is full


def test_devices_are_found_by_population_tag_and_state(fleet) -> None:
    mine, other, third = (each.device for each in fleet.add_devices(3))
    tag_device(fleet.state, mine, ["hall", "b-2", "hall"])
    tag_device(fleet.state, other, ["hallway"])
    block_device(fleet.state, third)
    assert ids(list_devices(fleet.state, tag="hall")) == [mine]
    assert get_device(fleet.state, mine)["tags"] == ["b-2", "hall"]
    assert ids(list_devices(fleet.state, population="others")) == []
    assert ids(list_devices(fleet.state, status="blocked")) == [third]
    assert len(ids(list_devices(fleet.state, status="active"))) == 2
    remove_device(fleet.state, other)
    assert ids(list_devices(fleet.state)) == sorted([mine, third])
    assert ids(list_devices(fleet.state, status="removed")) == [other]


@pytest.mark.parametrize("tags", [["a b"], ["<b>"], [""], ["x" * 65], [str(each) for each in range(17)], ['"']])
def test_tags_are_few_plain_words(fleet, tags: list[str]) -> None:
    (device,) = fleet.add_devices(1)
    with pytest.raises(InvalidSettingError):
        tag_device(fleet.state, device.device, tags)
    assert get_device(fleet.state, device.device)["tags"] == []


def test_a_device_is_named_by_the_beginning_of_its_id_where_that_is_one(fleet) -> None:
    secret = "0" * 64
    for device in ("abcdef" + "0" * 26, "abcdef" + "1" * 26):
        enrol(fleet.state, fleet.token, device, secret, "people", {})
    assert get_device(fleet.state, "abcdef0")["device"] == "abcdef" + "0" * 26
    with pytest.raises(UnknownDeviceError, match="Several"):
        get_device(fleet.state, "abcdef")
    for which in ("", "abcde", "ffffff", "%", "ABCDEF0", "abcdef" + "0" * 27):
        with pytest.raises(UnknownDeviceError, match="no device"):
            get_device(fleet.state, which)


def test_a_blocked_device_loses_its_place_and_nothing_that_was_accepted(fleet) -> None:
    run = fleet.create_run(rounds=2, target=2)
    first, second, third = fleet.add_devices(3)
    fleet.finish(first)
    task = fleet.task(second)
    outcome = fleet.outcome(task)
    assert next_task(fleet.state, third) is None
    block_device(fleet.state, second.device)
    block_device(fleet.state, first.device)
    assert next_task(fleet.state, second) is None
    with pytest.raises(NotWantedError):
        fleet.accept(second, outcome)
    fleet.finish(third)
    fleet.fold()
    (row,) = run_status(fleet.state, run)["history"][:1]
    assert (row["state"], row["outcomes"]["folded"]) == ("done", 2)
    unblock_device(fleet.state, second.device)
    assert next_task(fleet.state, second) is not None


def test_a_blocked_device_is_blocked_after_a_restart_too(make_fleet) -> None:
    fleet = make_fleet("a")
    (device,) = fleet.add_devices(1)
    block_device(fleet.state, device.device)
    fleet.state.close()
    again = make_fleet("a")
    assert again.state.barring.why(device.device) == "blocked"
    unblock_device(again.state, device.device)
    assert again.state.barring.why(device.device) is None


def test_removing_a_device_takes_what_is_not_folded_and_leaves_what_is(fleet) -> None:
    run = fleet.create_run(rounds=2, target=3, minimum=2)
    devices = fleet.add_devices(3)
    for device in devices:
        fleet.finish(device)
    fleet.fold()
    for device in devices[:2]:
        fleet.finish(device)
    gone = remove_device(fleet.state, devices[0].device)
    assert (gone["dropped"], gone["folded"]) == (1, 1)
    assert len(list(fleet.state.outcomes)) == 1
    fleet.finish(devices[2])
    fleet.fold()
    first, second = run_status(fleet.state, run)["history"]
    assert first["outcomes"]["folded"] == 3
    assert (second["state"], second["outcomes"]["folded"], second["outcomes"]["discarded"]) == ("done", 2, 1)
    assert "are of devices that were removed" in second["why"]


def test_a_fold_never_has_what_a_removed_device_sent_even_where_its_file_stayed(fleet, monkeypatch) -> None:
    run = fleet.create_run(rounds=1, target=2, minimum=1)
    devices = fleet.add_devices(2)
    task = fleet.task(devices[0])
    loud = fleet.outcome(task)
    fleet.accept(devices[0], loud)
    monkeypatch.setattr(type(fleet.state.outcomes), "delete", lambda *_: None)  # as if it was killed before
    remove_device(fleet.state, devices[0].device)
    monkeypatch.undo()
    fleet.finish(devices[1])
    fleet.fold()
    status = run_status(fleet.state, run)
    assert (status["state"], status["history"][0]["outcomes"]["folded"]) == ("done", 1)
    assert np.isfinite(status["history"][0]["loss"])


def test_a_block_that_fails_lets_nobody_in_who_was_blocked_before(fleet, monkeypatch) -> None:
    (device,) = fleet.add_devices(1)
    block_device(fleet.state, device.device)

    def full():
        raise StorageError("The disk is full.", full=True)

    for act in (block_device, remove_device, unblock_device):
        with monkeypatch.context() as patched:
            patched.setattr(fleet.state.database, "write", full)
            with pytest.raises(StorageError):
                act(fleet.state, device.device)
        assert fleet.state.barring.why(device.device) == "blocked"


def test_a_device_that_is_removed_while_it_is_being_blocked_stays_removed(fleet, monkeypatch) -> None:
    (device,) = fleet.add_devices(1)
    removing = threading.Thread(target=remove_device, args=(fleet.state, device.device))
    read = fleet.state.database.read

    @contextmanager
    def read_and_be_slow():
        with read() as session:
            yield session
        if not removing.ident:
            removing.start()
            removing.join(0.5)  # as long as it would take, if it did not wait

    monkeypatch.setattr(fleet.state.database, "read", read_and_be_slow)
    block_device(fleet.state, device.device)
    removing.join()
    assert fleet.state.barring.why(device.device) == "removed"


def test_a_device_that_is_removed_while_its_round_is_merged_is_not_in_what_comes_of_it(fleet, monkeypatch) -> None:
    run = fleet.create_run(rounds=1, target=3, minimum=1)
    devices = fleet.add_devices(3)
    for device in devices:
        fleet.finish(device)
    make, gone = folding.make, []

    def make_and_remove(*given):
        made = make(*given)
        if len(gone) < 2:
            gone.append(remove_device(fleet.state, devices[len(gone)].device))
        return made

    monkeypatch.setattr(folding, "make", make_and_remove)
    fleet.fold()
    assert [(each["dropped"], each["folded"]) for each in gone] == [(1, 0), (1, 0)]
    status = run_status(fleet.state, run)
    assert status["state"] == "done"
    counts = status["history"][0]["outcomes"]
    assert (counts["folded"], counts["discarded"]) == (1, 2)
    monkeypatch.undo()
    assert remove_device(fleet.state, devices[2].device)["folded"] == 1


def test_a_quota_holds_for_a_call_that_was_waiting_while_the_last_outcome_came(fleet) -> None:
    device, other = fleet.add_devices(2)
    fleet.create_run(rounds=9, target=1)
    fleet.create_run(rounds=9, target=1)
    limit_device(fleet.state, device.device, Quota(outcomes=1))
    task = fleet.task(device)
    assert fleet.state.barring.seconds_left(device.device, fleet.clock.now) == 0  # as a second call was told
    fleet.accept(device, fleet.outcome(task))
    fleet.state.barring._until[device.device] = 0.0  # as when that call's look ended last
    assert next_task(fleet.state, device) is None
    assert next_task(fleet.state, other) is not None


def test_a_removed_device_is_nobody_and_its_id_is_never_taken_again(fleet) -> None:
    me = Identity.number(0)
    (device,) = fleet.add_devices(1)
    assert populations(fleet.state) == {"people": 1}
    remove_device(fleet.state, device.device)
    with pytest.raises(AuthenticationError):
        authenticate(fleet.state, me.device, me.secret)
    with pytest.raises(EnrolmentRefusedError, match="was removed by the operator"):
        enrol(fleet.state, fleet.token, me.device, me.secret_hash, "people", {})
    with pytest.raises(UnknownDeviceError, match="removed"):
        remove_device(fleet.state, device.device)
    assert populations(fleet.state) == {"people": 0}


def test_last_seen_is_exact_in_memory_and_some_minutes_old_on_the_disk(fleet) -> None:
    (device,) = fleet.add_devices(1)
    now = 0.0
    seen = fleet.state.seen = Seen(lambda: now)
    assert get_device(fleet.state, device.device)["seen_at"] is None
    seen.note(device.device, 77.0)
    assert get_device(fleet.state, device.device)["seen_at"] == 77.0
    assert seen.keep(fleet.state.database) == 0
    now = WRITTEN_SECONDS
    assert [seen.keep(fleet.state.database), seen.keep(fleet.state.database, now=True)] == [1, 0]
    fleet.state.seen = Seen()
    assert get_device(fleet.state, device.device)["seen_at"] == 77.0


@pytest.mark.parametrize(
    ("quota", "sent", "until"),
    [
        (Quota(), [(0, 10)] * 9, 0),
        (Quota(outcomes=2), [(5, 1)], 0),
        (Quota(outcomes=2), [(5, 1), (9, 1)], 5 + 86_400),
        (Quota(outcomes=2), [(1, 1), (5, 1), (9, 1)], 5 + 86_400),
        (Quota(bytes=10), [(1, 4), (5, 5)], 0),
        (Quota(bytes=10), [(1, 4), (5, 6)], 1 + 86_400),
        (Quota(bytes=10), [(1, 4), (5, 20)], 5 + 86_400),
        (Quota(outcomes=1, bytes=10), [(1, 4), (5, 6)], 5 + 86_400),
        (Quota(outcomes=0), [], float("inf")),
        (Quota(bytes=0), [], float("inf")),
    ],
)
def test_a_quota_says_from_when_there_is_room_again(quota: Quota, sent: list, until: float) -> None:
    assert quota.until(sent) == until


def test_a_device_waits_for_its_quota_and_one_look_is_enough_for_many_calls(fleet, monkeypatch) -> None:
    (device,) = fleet.add_devices(1)
    fleet.create_run(rounds=9, target=1)
    limit_device(fleet.state, device.device, Quota(outcomes=1))
    barring = fleet.state.barring
    assert barring.seconds_left(device.device, fleet.clock.now) == 0
    fleet.finish(device)
    fleet.clock.now += 100
    assert barring.seconds_left(device.device, fleet.clock.now) == 86_300
    with monkeypatch.context() as patched:
        patched.setattr(barring, "_sent", lambda *_: pytest.fail("the database was read"))
        assert barring.seconds_left(device.device, fleet.clock.now + 100) == 86_200
    fleet.clock.now += 86_300
    assert barring.seconds_left(device.device, fleet.clock.now) == 0
    limit_device(fleet.state, device.device, Quota())
    assert not barring.is_limited(device.device)


def test_going_back_to_an_older_server_lets_no_blocked_device_in(make_fleet, tmp_path: Path) -> None:
    fleet = make_fleet("a")
    mine, other = fleet.add_devices(2)
    tag_device(fleet.state, mine.device, ["hall"])
    block_device(fleet.state, other.device)
    fleet.state.close()
    _migrate(tmp_path / "a" / "server.sqlite", "0010", down=True)
    again = ServerState(tmp_path / "a", fleet.clock, fleet.clock)
    assert authenticate(again, mine.device, Identity.number(0).secret).device == mine.device
    with pytest.raises(AuthenticationError):
        authenticate(again, other.device, Identity.number(1).secret)
    again.close()
