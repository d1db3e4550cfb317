from __future__ import annotations

import base64
import json
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefl.errors import InvalidSettingError
from edgefl.invitation import Invitation


def encode(document: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(document, separators=(",", ":")).encode()).decode().rstrip("=")


TEXT = st.text(min_size=1)
COMPLETE = {"server": "s", "population": "p", "token": "t"}


INVITATIONS = st.builds(Invitation, TEXT, TEXT, TEXT, *(4 * [st.none() | TEXT]))


@given(invitation=INVITATIONS, wrap=st.integers(1, 99))
def test_an_invitation_is_read_also_when_a_mail_wrapped_it(invitation, wrap):
    text = invitation.encode()
    wrapped = "\n".join(text[start : start + wrap] for start in range(0, len(text), wrap))
    assert Invitation.parse(wrapped) == invitation


@given(INVITATIONS)
def test_the_line_is_base64url_of_json_without_padding(invitation):
    document = asdict(invitation)
    told = {name: value for name, value in document.items() if value is not None or not name.startswith("next_")}
    assert invitation.encode() == encode(told)


def test_pins_may_be_missing_and_later_members_are_ignored():
    document = {"server": "s", "population": "p", "token": "t", "later": 1}
    assert Invitation.parse(encode(document)) == Invitation("s", "p", "t")


@given(st.text())
def test_anything_else_is_refused_in_one_line(text):
    with pytest.raises(InvalidSettingError, match="Copy the whole line"):
        Invitation.parse(text)


def test_what_is_nested_without_end_is_refused_in_one_line():
    nested = base64.urlsafe_b64encode(b"[" * 100_000).decode()
    with pytest.raises(InvalidSettingError, match="Copy the whole line"):
        Invitation.parse(nested)


@pytest.mark.parametrize(
    "document",
    [
        [],
        "text",
        {},
        {"server": "s", "population": "p"},
        {"server": "s", "population": "p", "token": 3},
        {**COMPLETE, "public_key_pin": 3},
        {**COMPLETE, "certificate_pin": []},
        {**COMPLETE, "public_key_pin": {}},
    ],
)
def test_a_field_that_is_missing_or_of_another_type_is_refused(document):
    with pytest.raises(InvalidSettingError):
        Invitation.parse(encode(document))


def test_half_an_invitation_is_refused():
    text = encode({"server": "https://host:1", "population": "p", "token": "t"})
    with pytest.raises(InvalidSettingError):
        Invitation.parse(text[: len(text) // 2])


def test_the_token_does_not_show_in_logs():
    assert "geheim" not in repr(Invitation("s", "p", "geheim"))
