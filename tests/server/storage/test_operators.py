from __future__ import annotations

import pytest

from edgefl.errors import InvalidSettingError
from edgefl_server.roles import Operator, Role
from edgefl_server.storage import (
    OperatorRefusedError,
    add_operator,
    has_form_of_key,
    list_operators,
    operator_named,
    operator_with_key,
    revoke_operator,
)

NAMES = ["ada", "<script>alert(1)</script>", "two\nlines\x1b[2J", "日本", "x" * 64]


@pytest.mark.parametrize("name", NAMES)
def test_a_key_names_its_operator_whatever_that_is_called(fleet, name: str) -> None:
    key = add_operator(fleet.state, name, Role.VIEWER)
    assert has_form_of_key(key)
    assert operator_with_key(fleet.state, key) == operator_named(fleet.state, name) == Operator(name, Role.VIEWER)
    assert [each["name"] for each in list_operators(fleet.state)] == [name]


def test_no_key_is_on_the_disk(fleet) -> None:
    key = add_operator(fleet.state, "ada", Role.ADMIN)
    fleet.state.close()
    everything = b"".join(path.read_bytes() for path in fleet.state.folder.rglob("*") if path.is_file())
    assert key.encode() not in everything


def test_a_revoked_key_is_worth_nothing_and_its_name_stays_taken(fleet) -> None:
    key = add_operator(fleet.state, "ada", Role.OPERATOR)
    revoke_operator(fleet.state, "ada")
    revoke_operator(fleet.state, "ada")
    with pytest.raises(OperatorRefusedError, match="'ada' was revoked"):
        operator_with_key(fleet.state, key)
    assert operator_named(fleet.state, "ada") is None
    with pytest.raises(InvalidSettingError, match="is or was"):
        add_operator(fleet.state, "ada", Role.OPERATOR)
    (row,) = list_operators(fleet.state)
    assert (row["state"], row["revoked_at"]) == ("revoked", fleet.clock.now)


def test_a_key_expires_at_its_time(fleet) -> None:
    key = add_operator(fleet.state, "ada", Role.OPERATOR, 60)
    fleet.clock.now += 59
    assert operator_with_key(fleet.state, key).name == "ada"
    fleet.clock.now += 1
    with pytest.raises(OperatorRefusedError, match="'ada' has expired"):
        operator_with_key(fleet.state, key)
    assert operator_named(fleet.state, "ada") is None
    assert [each["state"] for each in list_operators(fleet.state)] == ["expired"]


@pytest.mark.parametrize("name", ["", " ", "x" * 65, "a\0b", "\ud800", "admin"])
def test_names_that_are_none_or_the_admins_are_refused(fleet, name: str) -> None:
    with pytest.raises(InvalidSettingError):
        add_operator(fleet.state, name, Role.VIEWER)
    with pytest.raises(InvalidSettingError, match="There is no operator"):
        revoke_operator(fleet.state, name)


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_a_time_that_is_over_before_it_begins_is_refused(fleet, seconds: float) -> None:
    with pytest.raises(InvalidSettingError, match="expires"):
        add_operator(fleet.state, "ada", Role.VIEWER, seconds)


def test_a_key_that_was_never_given_out_is_nobodys(fleet) -> None:
    with pytest.raises(OperatorRefusedError, match="not one of"):
        operator_with_key(fleet.state, "edgefl_" + "a" * 43)
