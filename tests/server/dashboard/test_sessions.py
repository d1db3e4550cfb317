"""Sessions in a browser: whom a cookie lets in, and for how long."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefl_server.dashboard.sessions import Sessions, is_own_page

SECRET = b"s" * 32


def sessions(secret: bytes = SECRET) -> Sessions:
    return Sessions(secret, 3600)


@given(st.text(max_size=64).filter(lambda each: not any("\ud800" <= letter <= "\udfff" for letter in each)))
def test_a_cookie_says_who_signed_in_whatever_the_name(name: str) -> None:
    found = sessions().read(sessions().begin(name, 1000.0), 1001.0)
    assert found is not None
    assert found.name == name


def test_a_session_ends() -> None:
    cookie = sessions().begin("ada", 1000.0)
    assert sessions().read(cookie, 4599.0) is not None
    assert sessions().read(cookie, 4600.0) is None


def test_a_session_that_was_ended_is_over_for_a_copy_of_its_cookie_too() -> None:
    mine = sessions()
    cookie, other = mine.begin("ada", 1000.0), mine.begin("ada", 1000.0)
    found = mine.read(cookie, 1001.0)
    assert found is not None
    mine.end(found, 1001.0)
    assert mine.read(cookie, 1002.0) is None
    assert mine.read(other, 1002.0) is not None


def test_another_secret_means_other_sessions_and_another_cookie() -> None:
    other = sessions(b"t" * 32)
    assert other.read(sessions().begin("ada", 1000.0), 1001.0) is None
    assert other.cookie != sessions().cookie


@given(st.integers(0, 200), st.sampled_from("0aZ.-_"))
def test_a_cookie_of_which_a_letter_was_changed_is_none(place: int, letter: str) -> None:
    cookie = sessions().begin("ada", 1000.0)
    place %= len(cookie)
    changed = cookie[:place] + letter + cookie[place + 1 :]
    assert (sessions().read(changed, 1001.0) is not None) == (changed == cookie)


@given(st.text(max_size=300))
def test_rubbish_is_no_session(text: str) -> None:
    assert sessions().read(text, 0.0) is None


def test_tokens_of_two_sessions_differ() -> None:
    mine = sessions()
    first, second = (mine.read(mine.begin("ada", 1000.0), 1001.0) for _ in range(2))
    assert first is not None
    assert second is not None
    assert first.token != second.token


@pytest.mark.parametrize(
    ("headers", "own"),
    [
        ({"sec-fetch-site": "same-origin"}, True),
        ({"sec-fetch-site": "cross-site", "origin": "https://here", "host": "here"}, False),
        ({"sec-fetch-site": "same-site"}, False),
        ({"sec-fetch-site": "none"}, False),
        ({"origin": "http://here:8470", "host": "here:8470"}, True),
        ({"origin": "https://here:8470", "host": "here:8470"}, True),
        ({"origin": "http://here:8471", "host": "here:8470"}, False),
        ({"origin": "http://evil", "host": "here"}, False),
        ({"origin": "null", "host": "here"}, False),
        ({"origin": "", "host": ""}, False),
        ({"origin": "null", "host": ""}, False),
        ({"origin": "http://[::1", "host": "here"}, False),
        ({"origin": "http://here@evil", "host": "here"}, False),
        ({"host": "here"}, False),
    ],
)
def test_only_a_page_of_the_server_itself_may_change_something(headers: dict[str, str], own: bool) -> None:
    assert is_own_page(headers) is own
