from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from edgefl.errors import InvalidSettingError
from edgefl_server.storage import (
    EnrolmentRefusedError,
    audit_entries,
    enrol,
    invite,
    list_invitations,
    populations,
    revoke_invitation,
)
from edgefl_server.storage.sqlite import SqliteDatabase
from fake_device import Identity
from server.storage.test_state import _migrate


def take_in(fleet, number: int, token: str) -> bool:
    me = Identity.number(number)
    return enrol(fleet.state, token, me.device, me.secret_hash, "people", {})


def why(fleet, number: int, token: str) -> str:
    with pytest.raises(EnrolmentRefusedError) as refused:
        take_in(fleet, number, token)
    assert refused.value.code == "invitation_over"
    return refused.value.message


def latest(fleet) -> dict:
    return list_invitations(fleet.state)[-1]


def test_an_invitation_is_for_ever_and_for_all_unless_it_says_otherwise(fleet) -> None:
    fleet.clock.now += 1e9
    assert all(take_in(fleet, number, fleet.token) for number in range(3))
    (only,) = list_invitations(fleet.state)
    assert (only["state"], only["uses"], only["used"], only["expires_at"]) == ("open", None, 3, None)


def test_an_invitation_lets_in_as_many_as_it_says_and_again_who_was_let_in(fleet) -> None:
    token = invite(fleet.state, "people", uses=2)
    assert take_in(fleet, 0, token)
    assert take_in(fleet, 1, token)
    assert why(fleet, 2, token) == "The invitation has let in as many devices as it was for."
    assert take_in(fleet, 0, token) is False
    assert {each["used"] for each in list_invitations(fleet.state)} == {0, 2}


def test_an_invitation_expires_and_who_was_let_in_may_repeat_itself(fleet) -> None:
    token = invite(fleet.state, "people", seconds=60)
    assert take_in(fleet, 0, token)
    fleet.clock.now += 60
    assert why(fleet, 1, token) == "The invitation has expired."
    assert take_in(fleet, 0, token) is False


def test_a_revoked_invitation_lets_nobody_in_and_takes_nothing_from_who_was(fleet) -> None:
    fleet.clock.now += 1
    token = invite(fleet.state, "people", label="<b>hall</b>\n", made_by="ada")
    assert take_in(fleet, 0, token)
    found = latest(fleet)
    assert (found["label"], found["made_by"], found["state"]) == ("<b>hall</b>\n", "ada", "open")
    revoke_invitation(fleet.state, found["id"])
    assert why(fleet, 1, token) == "The invitation was revoked."
    assert take_in(fleet, 0, token) is False
    assert latest(fleet)["state"] == "revoked"
    assert take_in(fleet, 1, fleet.token)
    assert audit_entries(fleet.state)["audit"][-1]["detail"] == {"invitation": found["id"], "label": "<b>hall</b>\n"}


@pytest.mark.parametrize("which", ["", "0" * 12, "%", "_" * 12, "g" * 12, "0" * 64])
def test_what_names_no_invitation_revokes_none(fleet, which: str) -> None:
    with pytest.raises(InvalidSettingError, match="no invitation"):
        revoke_invitation(fleet.state, which)
    assert latest(fleet)["state"] == "open"


@pytest.mark.parametrize(
    "settings", [{"uses": 0}, {"uses": -1}, {"uses": 10**12}, {"seconds": 0}, {"label": "x" * 201}, {"label": "\0"}]
)
def test_an_invitation_that_is_over_before_it_begins_is_refused(fleet, settings: dict) -> None:
    with pytest.raises(InvalidSettingError):
        invite(fleet.state, "people", **settings)


def test_a_thousand_at_once_with_an_invitation_for_ten_are_ten(fleet) -> None:
    token = invite(fleet.state, "people", uses=10)
    ready = threading.Barrier(16)

    def share(first: int) -> list[str]:
        ready.wait()
        found = []
        for number in range(first, 1000, 16):
            try:
                found.append("in" if take_in(fleet, number, token) else "again")
            except EnrolmentRefusedError as error:
                found.append(str(error.code))
        return found

    with ThreadPoolExecutor(16) as pool:
        found = [each for part in pool.map(share, range(16)) for each in part]
    assert sorted(set(found)) == ["in", "invitation_over"]
    assert found.count("in") == 10
    assert populations(fleet.state) == {"people": 10}
    assert {(each["uses"], each["used"]) for each in list_invitations(fleet.state)} == {(None, 0), (10, 10)}


def test_invitations_of_before_stay_good_and_going_back_takes_those_that_end(tmp_path: Path) -> None:
    path = tmp_path / "db.sqlite"
    _migrate(path, "0010")
    engine = sa.create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        connection.execute(sa.text("INSERT INTO invitations VALUES ('old', 'people', 1.0)"))
    with closing(SqliteDatabase(path)) as database, database.write() as session:
        (row,) = session.execute(sa.text("SELECT label, uses, used, expires_at, revoked_at FROM invitations"))
        assert tuple(row) == ("", None, 0, None, None)
        session.execute(
            sa.text(
                "INSERT INTO invitations (token_hash, population, created_at, uses) VALUES ('new', 'people', 2.0, 1)"
            )
        )
    _migrate(path, "0010", down=True)
    with engine.begin() as connection:
        assert list(connection.execute(sa.text("SELECT * FROM invitations"))) == [("old", "people", 1.0)]
    engine.dispose()
