from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefl.certificates import pins_from_header, pins_to_header
from edgefl.errors import InvalidSettingError
from edgefl_device_runtime.agent.state import StateFolder
from edgefl_device_runtime.agent.trust import Trust

PAIRS = [(f"{number:064x}", f"sha256//{'A' * 42}{letter}=") for number, letter in enumerate("ABCDEF")]
OLD, NEW, LATER = PAIRS[:3]


@pytest.fixture
def shows(monkeypatch: pytest.MonkeyPatch):
    """Certificates are their own pins here: what makes pins of one has its own tests."""
    monkeypatch.setattr("edgefl_device_runtime.agent.trust.pins_of", lambda certificate: PAIRS[certificate[0]])


def accepted(trust: Trust) -> list[int]:
    return [number for number in range(len(PAIRS)) if trust.accepts(bytes([number]))]


@pytest.mark.parametrize(
    ("pairs", "numbers"),
    [
        ([OLD], [0]),
        ([OLD, NEW], [0, 1]),
        ([(OLD[0], None)], [0]),
        ([(None, OLD[1]), (None, NEW[1])], [0, 1]),
        ([(OLD[0], NEW[1])], []),
        ([(None, None)], []),
    ],
)
def test_any_pair_suffices_and_of_a_pair_all_that_is_there(shows, pairs: list, numbers: list[int]) -> None:
    assert accepted(Trust(pairs)) == numbers


def test_what_the_server_announces_takes_the_place_of_what_was_accepted(shows) -> None:
    told: list = []
    trust = Trust([OLD], told.append)
    assert trust.accepts(b"\0")
    trust.learn(pins_to_header([OLD, NEW]))
    trust.learn(pins_to_header([OLD, NEW]))
    assert told == [[OLD, NEW]]
    assert trust.accepts(b"\1")
    trust.learn(pins_to_header([NEW]))
    assert (trust.pairs, trust.accepts(b"\0")) == ([NEW], False)


def test_a_device_goes_on_with_the_kind_of_pins_that_it_was_given(shows) -> None:
    trust = Trust([(None, OLD[1])])
    assert trust.accepts(b"\0")
    trust.learn(pins_to_header([OLD, NEW]))
    assert trust.pairs == [(None, OLD[1]), (None, NEW[1])]


@pytest.mark.parametrize(
    "header",
    ["", "nonsense", pins_to_header([NEW]), pins_to_header([NEW, LATER]), f"{pins_to_header([OLD])}, x", "," * 9999],
)
def test_nothing_is_learnt_that_leaves_out_what_the_server_shows_or_is_no_pin(shows, header: str) -> None:
    trust = Trust([OLD], pytest.fail)
    assert trust.accepts(b"\0")
    trust.learn(header)
    assert trust.pairs == [OLD]


def test_without_pins_none_are_learnt(shows) -> None:
    trust = Trust([], pytest.fail)
    assert not trust.accepts(b"\0")
    trust.learn(pins_to_header([OLD]))
    assert not trust.is_pinned


def test_bytes_that_are_no_certificate_are_none() -> None:
    assert not Trust([OLD]).accepts(b"")
    assert not Trust([OLD]).accepts(b"\x30\x03abc")


@given(st.text(max_size=400))
def test_a_header_of_any_text_is_read_as_whole_pairs_or_as_nothing(text: str) -> None:
    assert all(len(own) == 64 and key.startswith("sha256//") for own, key in pins_from_header(text))


@pytest.mark.parametrize("count", [1, 2, 4])
def test_a_header_is_read_as_it_was_written(count: int) -> None:
    assert pins_from_header(pins_to_header(PAIRS[:count])) == PAIRS[:count]
    assert pins_from_header(pins_to_header(PAIRS[:5])) == []


def test_what_was_learnt_counts_after_a_restart_as_long_as_the_same_pins_are_given(shows, tmp_path) -> None:
    state = StateFolder(tmp_path)
    trust = state.trust([OLD, (None, None)])
    assert trust.accepts(b"\0")
    trust.learn(pins_to_header([OLD, NEW]))
    assert state.trust([OLD]).pairs == [OLD, NEW]
    assert state.trust([LATER]).pairs == [LATER]
    assert state.trust([]).pairs == []


@pytest.mark.parametrize(
    "damage", ["", "[]", '{"given": []}', json.dumps({"given": [list(OLD)], "trusted": [["x", 1]]})]
)
def test_a_damaged_file_of_pins_is_as_if_there_was_none(tmp_path, damage: str) -> None:
    (tmp_path / "pins.json").write_text(damage)
    assert StateFolder(tmp_path).trust([OLD]).pairs == [OLD]
    with pytest.raises(InvalidSettingError):
        StateFolder(tmp_path).trust([("x", None)])
