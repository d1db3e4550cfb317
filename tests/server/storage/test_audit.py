from __future__ import annotations

import pytest
import sqlalchemy
from sqlalchemy.exc import IntegrityError

from edgefl_server.storage import Refusals, audit_entries, enrol, note_act
from fake_device import Identity


def test_entries_come_newest_first_page_by_page_and_since_a_date(fleet) -> None:
    for number in range(5):
        fleet.clock.now += 1
        note_act(fleet.state, "ada", "operator", "runs.stop", f"run-{number}")
    first = audit_entries(fleet.state, 2)
    assert [each["about"] for each in first["audit"]] == ["run-4", "run-3"]
    second = audit_entries(fleet.state, 3, before=first["next"])
    assert [each["about"] for each in second["audit"]] == ["run-2", "run-1", "run-0"]
    assert second["next"] is None  # there is none behind a full page
    since = audit_entries(fleet.state, since=fleet.clock.now - 1)
    assert [each["about"] for each in since["audit"]] == ["run-4", "run-3"]


@pytest.mark.parametrize("name", ["<img src=x onerror=alert(1)>", "a\nb\x1b[31m\u202e", "日本"])
def test_names_stand_there_as_they_are(fleet, name: str) -> None:
    note_act(fleet.state, name, "viewer", "operators.create", name, {"role": name})
    (entry,) = audit_entries(fleet.state)["audit"]
    assert (entry["who"], entry["about"], entry["detail"]) == (name, name, {"role": name})


@pytest.mark.parametrize(
    "statement", ["UPDATE audit SET who = 'nobody'", "DELETE FROM audit", "DELETE FROM audit WHERE number = 1"]
)
def test_the_database_itself_refuses_to_change_or_delete_an_entry(fleet, statement: str) -> None:
    note_act(fleet.state, "ada", "operator", "runs.stop", "run")
    before = audit_entries(fleet.state)["audit"]
    with pytest.raises(IntegrityError, match="append-only"), fleet.state.database.write() as session:
        session.execute(sqlalchemy.text(statement))
    assert audit_entries(fleet.state)["audit"] == before


def test_an_enrolment_is_one_entry_however_often_it_is_repeated(fleet) -> None:
    me = Identity.number(0)
    for _ in range(3):
        enrol(fleet.state, fleet.token, me.device, me.secret_hash, "people", {})
    (entry,) = audit_entries(fleet.state)["audit"]
    assert (entry["who"], entry["role"], entry["act"], entry["about"]) == (
        me.device,
        "device",
        "devices.enrol",
        "people",
    )


def test_a_million_refusals_are_one_short_entry_in_ten_minutes(fleet) -> None:
    refusals = Refusals(fleet.clock)
    for number in range(100_000):
        refusals.note("operator" if number % 2 else "device", f"10.0.{number >> 8}.{number % 256}")
    refusals.keep(fleet.state)
    assert audit_entries(fleet.state)["audit"] == []
    fleet.clock.now += 600
    refusals.keep(fleet.state)
    refusals.keep(fleet.state)
    (entry,) = audit_entries(fleet.state)["audit"]
    assert (entry["act"], entry["role"]) == ("refused", "stranger")
    assert entry["detail"]["count"] == 100_000
    assert entry["detail"]["kinds"] == {"device": 50_000, "operator": 50_000}
    assert len(str(entry["detail"])) < 600
    refusals.note("role", "eve")
    refusals.keep(fleet.state, now=True)
    assert audit_entries(fleet.state)["audit"][0]["detail"]["from"] == {"eve": 1}


def test_nothing_was_refused_is_no_entry(fleet) -> None:
    refusals = Refusals(fleet.clock)
    fleet.clock.now += 1e6
    refusals.keep(fleet.state, now=True)
    assert audit_entries(fleet.state)["audit"] == []
