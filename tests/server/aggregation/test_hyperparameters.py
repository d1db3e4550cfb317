from __future__ import annotations

import math
from dataclasses import dataclass, field, make_dataclass
from typing import Any

import pytest

from edgefl.errors import InvalidSettingError
from edgefl_server.aggregation import STRATEGIES, Strategy
from edgefl_server.aggregation.hyperparameters import SettingError, check_ranges, check_usual, setting, settings_of
from edgefl_server.aggregation.strategies.fedavg import FedAvg


@dataclass(frozen=True)
class Cooking:
    minutes: int = setting(help="How long.", lowest=1, highest=90)
    salt: float | None = setting(None, help="How much.", lowest=1e-30, usual=(1e-30, 5), why="Taste it.", off=0)
    note: str = field(default="")


def test_only_fields_that_are_settings_are_found_with_their_kinds_and_whether_they_may_be_absent() -> None:
    minutes, salt = settings_of(Cooking)
    assert (minutes.name, minutes.kind, minutes.optional, minutes.required) == ("minutes", int, False, True)
    assert (salt.name, salt.kind, salt.optional, salt.required) == ("salt", float, True, False)


@pytest.mark.parametrize("values", [{"minutes": 1}, {"minutes": 90, "salt": 0}, {"minutes": 5, "salt": 5.0}])
def test_what_lies_in_the_range_is_accepted(values: dict) -> None:
    check_ranges(Cooking(**values))
    check_usual(Cooking(**values))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"minutes": 0}, "minutes expects a number from 1 to 90, got 0"),
        ({"minutes": math.nan}, "minutes expects a whole number, got nan"),
        ({"minutes": "5"}, "minutes expects a number, got '5'"),
        ({"minutes": True}, "minutes expects a number, got True"),
        ({"minutes": 5, "salt": 1e-40}, "salt expects a number above 0"),
    ],
)
def test_what_lies_outside_is_refused(values: dict, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        check_ranges(Cooking(**values))


def test_what_is_possible_but_not_usual_is_refused_of_new_ones_only_with_a_hint() -> None:
    check_ranges(Cooking(5, 6.0))
    with pytest.raises(SettingError, match="from 1e-30 to 5") as refused:
        check_usual(Cooking(5, 6.0))
    assert refused.value.hint == "Taste it."


def strategy(name: str, kind: type, **options: Any) -> type[Strategy]:
    made = make_dataclass("Made", [(name, kind, setting(help="x", **options))], bases=(FedAvg,), frozen=True)
    made.__annotations__[name] = kind
    return made


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        (strategy("epochs", int), "called like what a run has"),
        (strategy("population", int), "called like what a run has"),
        (strategy("mu", int), "is int, that of feddyn is float"),
        (make_dataclass("Bare", [("depth", int)], bases=(FedAvg,), frozen=True), "depth is no setting"),
        (strategy("cut", float, default=3, lowest=0, highest=1), "cut expects a number from 0 to 1, got 3"),
        (dataclass(frozen=True)(type("Lacking", (Strategy,), {})), "Lacking lacks apply"),
        (dataclass(frozen=True)(type("Made", (FedAvg,), {"algorithm": "fedprocks"})), "fedprox, .*got 'fedprocks'"),
        (object(), "no dataclass that is a Strategy"),
        (dict, "no dataclass that is a Strategy"),
    ],
)
def test_a_strategy_from_outside_that_cannot_be_used_is_refused_with_the_reason(entry, why: str) -> None:
    def add() -> None:
        for check in STRATEGIES._checks:
            check("outside", entry)

    with pytest.raises(InvalidSettingError, match=why):
        add()
