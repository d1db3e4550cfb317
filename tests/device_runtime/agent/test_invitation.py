from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefl.errors import InvalidSettingError
from edgefl_device_runtime.agent.invitation import Invitation


def encode(document: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(document).encode()).decode().rstrip("=")


TEXT = st.text(min_size=1)


@given(server=TEXT, population=TEXT, token=TEXT, pin=st.none() | TEXT, wrap=st.integers(1, 99))
def test_an_invitation_is_read_also_when_a_mail_wrapped_it(server, population, token, pin, wrap):
    document = {"server": server, "population": population, "token": token, "certificate_pin": pin, "later": 1}
    text = encode(document)
    wrapped = "\n".join(text[start : start + wrap] for start in range(0, len(text), wrap))
    assert Invitation.parse(wrapped) == Invitation(server, population, token, pin)


@given(st.text())
def test_anything_else_is_refused_in_one_line(text):
    with pytest.raises(InvalidSettingError, match="Copy the whole line"):
        Invitation.parse(text)


@pytest.mark.parametrize(
    "document",
    [[], "text", {}, {"server": "s", "population": "p"}, {"server": "s", "population": "p", "token": 3}],
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
