"""Numbers with which nothing would be learnt, and what is no number: every numeric setting refuses them."""

from __future__ import annotations

import math

import pytest

from edgefl_server.aggregation import STRATEGIES, RunSettings
from edgefl_server.aggregation.hyperparameters import NORMS, SettingError, settings_of
from edgefl_server.aggregation.pre_aggregation import PRE_AGGREGATORS
from edgefl_server.aggregation.rules import RULES
from edgefl_server.aggregation.server_optimizers import SERVER_OPTIMIZERS

PARTS = {"rule": RULES, "pre_aggregation": PRE_AGGREGATORS, "server_optimizer": SERVER_OPTIMIZERS}


def owners():
    """All that has settings of its own, with what chooses it."""
    yield RunSettings, {}
    for name in STRATEGIES.names():
        yield STRATEGIES.get(name), {"strategy": name}
    for part, registry in PARTS.items():
        for name in registry.names():
            yield registry.get(name), {part: name}


NUMBERS = [
    pytest.param(each, id=f"{owner.__name__}-{each.name}")
    for owner, _ in owners()
    for each in settings_of(owner)
    if each.kind in (int, float) and not each.part
]


def is_refused(each, value) -> bool:
    try:
        each.check(value, each.possible)
        each.check(value, each.usual)
    except SettingError as error:
        return each.name in error.message
    return False


@pytest.mark.parametrize("each", NUMBERS)
def test_what_is_no_number_of_the_kind_is_refused(each) -> None:
    assert each.possible is not None, "nobody knows its range"
    for value in (math.nan, math.inf, -math.inf, -1, -1e-30, "7", "many", True, [], 10**400):
        assert is_refused(each, value), value
    assert each.kind is float or is_refused(each, 1.5)


@pytest.mark.parametrize("each", NUMBERS)
def test_next_to_nothing_is_refused_where_nothing_is(each) -> None:
    ranges = [allowed for allowed in (each.possible, each.usual) if allowed is not None]
    nothing_has_a_meaning = each.off != 0 and all(allowed.lowest <= 0 for allowed in ranges)
    assert is_refused(each, 1e-30) == (each.kind is int or not nothing_has_a_meaning)
    assert is_refused(each, 0) == (each.off != 0 and not nothing_has_a_meaning)


@pytest.mark.parametrize("each", NUMBERS)
def test_beyond_all_measure_is_refused_but_as_the_bound_of_a_norm_which_is_none_then(each) -> None:
    is_norm = each.usual is not None and (each.usual.lowest, each.usual.highest) == NORMS
    assert is_refused(each, 10**30 if each.kind is int else 1e30) != is_norm
    assert is_refused(each, 1e300 if each.kind is float else 2**64)


@pytest.mark.parametrize(
    "chosen",
    [
        {"learning_rate": 1e-30},
        {"clip_norm": 1e-20},
        {"strategy": "fedasync", "schedule": "buffered", "target": 1, "mixing": 1e-12},
        {"strategy": "feddyn", "mu": 1e-25},
        {"strategy": "qfedavg", "local_test": 0.1, "lipschitz": 1e20},
        {"server_optimizer": "sgd", "server_learning_rate": 1e-30},
        {"server_optimizer": "adam", "tau": 1e20},
        {"pre_aggregation": "norm-bound", "bound": 1e-30},
        {"pre_aggregation": "nnm,adaptive-clipping", "initial_norm": 1e-20},
        {"pre_aggregation": "adaptive-clipping", "quantile": 0.0},
        {"rule": "centered-clipping", "radius": 1e-25},
        {"rule": "geometric-median", "smoothing": 1e-25},
    ],
    ids=lambda chosen: list(chosen)[-1],
)
def test_a_run_with_which_nothing_would_be_learnt_goes_on_where_there_is_one_and_is_not_made_anew(chosen) -> None:
    settings = RunSettings.of(**{"rounds": 1, "target": 20, **chosen})
    with pytest.raises(SettingError, match=list(chosen)[-1]):
        settings.require_meaning()
