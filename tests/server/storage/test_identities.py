from __future__ import annotations

import base64
import hashlib
from pathlib import Path

import pytest

from edgefl.errors import AuthenticationError, InvalidSettingError
from edgefl_server.storage import (
    EnrolmentRefusedError,
    authenticate,
    enrol,
    get_device,
    invite,
    list_devices,
    remove_device,
    tell_capabilities,
    tell_public_key,
)
from fake_device import Identity

ME = Identity.number(0)


def test_enrolling_again_with_the_same_secret_changes_nothing(fleet) -> None:
    assert enrol(fleet.state, fleet.token, ME.device, ME.secret_hash, "people", {}) is True
    assert enrol(fleet.state, fleet.token, ME.device, ME.secret_hash, "people", {"cores": 4}) is False
    assert authenticate(fleet.state, ME.device, ME.secret).capabilities == {"cores": 4}


@pytest.mark.parametrize(
    ("token", "population", "code"),
    [("not a token", "people", "wrong_token"), ("", "people", "wrong_token"), (None, "others", "wrong_population")],
)
def test_only_the_populations_own_token_lets_a_device_in(fleet, token: str | None, population: str, code: str) -> None:
    with pytest.raises(EnrolmentRefusedError) as refused:
        enrol(fleet.state, fleet.token if token is None else token, ME.device, ME.secret_hash, population, {})
    assert refused.value.code == code
    with pytest.raises(AuthenticationError):
        authenticate(fleet.state, ME.device, ME.secret)


def test_an_id_with_another_secret_is_taken(fleet) -> None:
    enrol(fleet.state, fleet.token, ME.device, ME.secret_hash, "people", {})
    with pytest.raises(EnrolmentRefusedError) as refused:
        enrol(fleet.state, fleet.token, ME.device, "0" * 64, "people", {})
    assert refused.value.code == "identity_taken"
    assert authenticate(fleet.state, ME.device, ME.secret).device == ME.device


def test_an_id_stays_in_its_population(fleet) -> None:
    enrol(fleet.state, fleet.token, ME.device, ME.secret_hash, "people", {})
    other = invite(fleet.state, "others")
    with pytest.raises(EnrolmentRefusedError) as refused:
        enrol(fleet.state, other, ME.device, ME.secret_hash, "others", {})
    assert refused.value.code == "identity_taken"


@pytest.mark.parametrize(
    ("device", "secret_hash"), [("x" * 32, "0" * 64), ("0" * 31, "0" * 64), ("0" * 32, "0" * 63), ("0" * 32, "G" * 64)]
)
def test_ids_and_hashes_of_another_form_are_refused(fleet, device: str, secret_hash: str) -> None:
    with pytest.raises(InvalidSettingError):
        enrol(fleet.state, fleet.token, device, secret_hash, "people", {})


def nested(levels: int) -> dict:
    found: dict = {}
    for _ in range(levels - 1):
        found = {"x": found}
    return found


@pytest.mark.parametrize(
    "capabilities", [{"x": "y" * 5000}, {"x": float("nan")}, {"x": "\ud800"}, {"\udfff": 1}, nested(9), nested(900)]
)
def test_capabilities_are_small_and_plain(fleet, capabilities: dict) -> None:
    with pytest.raises(InvalidSettingError):
        enrol(fleet.state, fleet.token, ME.device, ME.secret_hash, "people", capabilities)


def test_capabilities_may_have_some_levels_and_any_text(fleet) -> None:
    said = {**nested(8), "text": "\0\u202e😀", "list": [[1], {}]}
    enrol(fleet.state, fleet.token, ME.device, ME.secret_hash, "people", said)
    assert get_device(fleet.state, ME.device)["capabilities"] == said


def test_a_removed_device_that_still_has_a_call_under_way_leaves_nothing_behind(fleet) -> None:
    enrol(fleet.state, fleet.token, ME.device, ME.secret_hash, "people", {})
    let_in = authenticate(fleet.state, ME.device, ME.secret)
    remove_device(fleet.state, ME.device)
    with pytest.raises(AuthenticationError):
        tell_capabilities(fleet.state, let_in, {"machine": "of somebody"})
    with pytest.raises(AuthenticationError):
        tell_public_key(fleet.state, let_in, key(1))
    (row,) = list_devices(fleet.state, status="removed")["devices"]
    assert row["capabilities"] == {}


def key(last: int) -> str:
    """An X25519 key as RFC 8410 has it."""
    return base64.b64encode(bytes.fromhex("302a300506032b656e032100") + bytes(31) + bytes([last])).decode()


def kept_key(fleet) -> str | None:
    return authenticate(fleet.state, ME.device, ME.secret).public_key


def test_a_public_key_is_kept_until_the_device_says_another(fleet) -> None:
    enrol(fleet.state, fleet.token, ME.device, ME.secret_hash, "people", {}, key(1))
    assert kept_key(fleet) == key(1)
    enrol(fleet.state, fleet.token, ME.device, ME.secret_hash, "people", {})
    assert kept_key(fleet) == key(1)
    enrol(fleet.state, fleet.token, ME.device, ME.secret_hash, "people", {}, key(2))
    assert kept_key(fleet) == key(2)


def test_a_device_that_enrolled_without_a_public_key_may_say_one_later(fleet) -> None:
    enrol(fleet.state, fleet.token, ME.device, ME.secret_hash, "people", {})
    assert kept_key(fleet) is None
    device = authenticate(fleet.state, ME.device, ME.secret)
    tell_public_key(fleet.state, device, key(1))
    assert (device.public_key, kept_key(fleet)) == (key(1), key(1))


def test_a_public_key_of_another_form_is_refused_and_the_device_is_not_enrolled(fleet) -> None:
    with pytest.raises(InvalidSettingError, match="public_key expects the base64 of a SubjectPublicKeyInfo"):
        enrol(fleet.state, fleet.token, ME.device, ME.secret_hash, "people", {}, "no key")
    with pytest.raises(AuthenticationError):
        authenticate(fleet.state, ME.device, ME.secret)


@pytest.mark.parametrize("population", ["", "a/b", "../x", "-x", "a" * 65, "a b", "ä", "a\n"])
def test_a_populations_name_is_a_plain_word(fleet, population: str) -> None:
    with pytest.raises(InvalidSettingError):
        invite(fleet.state, population)


@pytest.mark.parametrize(("device", "secret"), [(ME.device, "wrong"), ("", ""), ("0" * 32, ME.secret), (ME.device, "")])
def test_a_wrong_secret_is_no_device(fleet, device: str, secret: str) -> None:
    enrol(fleet.state, fleet.token, ME.device, ME.secret_hash, "people", {})
    with pytest.raises(AuthenticationError):
        authenticate(fleet.state, device, secret)


def test_older_invitations_stay_valid(fleet) -> None:
    invite(fleet.state, "people")
    assert enrol(fleet.state, fleet.token, ME.device, ME.secret_hash, "people", {}) is True


def test_no_secret_and_no_token_is_on_the_disk(fleet, tmp_path: Path) -> None:
    enrol(fleet.state, fleet.token, ME.device, ME.secret_hash, "people", {})
    fleet.state.close()
    everything = b"".join(path.read_bytes() for path in (tmp_path / "state").rglob("*") if path.is_file())
    assert ME.secret.encode() not in everything
    assert fleet.token.encode() not in everything
    assert hashlib.sha256(fleet.token.encode()).hexdigest().encode() in everything
