from __future__ import annotations

import pytest

from edgefl.errors import InvalidSettingError
from edgefl_server.aggregation import RunSettings, schedule_for
from edgefl_server.aggregation.schedules import SCHEDULES, Synchronous


class Lacking(Synchronous):
    """A schedule without one of the methods."""

    places = None  # type: ignore[assignment]


def failing(settings: RunSettings) -> Synchronous:
    raise KeyError("phases")


@pytest.mark.parametrize(("entry", "why"), [(3, "makes no schedule"), (Lacking, "Lacking lacks places")])
def test_what_cannot_be_a_schedule_is_left_out_with_the_reason(entry: object, why: str) -> None:
    (check,) = SCHEDULES._checks
    with pytest.raises(InvalidSettingError, match=why):
        check("outside", entry)


@pytest.mark.parametrize(
    ("makes", "why"),
    [
        (failing, "schedule outside cannot be made of these settings: KeyError: 'phases'"),
        (lambda settings: None, "makes a NoneType, which lacks assign, places, renew"),
        (Lacking, "makes a Lacking, which lacks places"),
    ],
)
def test_a_run_whose_schedule_cannot_be_made_is_refused_with_the_reason(
    makes: object, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SCHEDULES._entries, "outside", makes)  # type: ignore[arg-type]
    with pytest.raises(InvalidSettingError, match=why):
        schedule_for(RunSettings(rounds=1, target=1, schedule="outside"))


def test_an_unknown_schedule_lists_the_known_ones_and_names_the_nearest() -> None:
    with pytest.raises(InvalidSettingError, match="one of synchronous, buffered, got 'synchronus'") as refused:
        schedule_for(RunSettings(rounds=1, target=1, schedule="synchronus"))
    assert refused.value.hint == "Did you mean synchronous?"
