"""docs/coverage.md tells the truth: every public name has a row, and every row does what it says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from keras_coverage.architectures import ARCHITECTURES
from keras_coverage.families import ROWS
from keras_coverage.measuring import measure, measure_architecture
from keras_coverage.public import SECTIONS, aliases, public
from keras_coverage.report import answers, refused_share, written_answers
from keras_coverage.representatives import REPRESENTATIVES, found_anew
from keras_coverage.running import NETWORKS, run_all

DOCUMENT = Path(__file__).parents[2] / "docs" / "coverage.md"


ROWS_WITH_MODELS = {
    f"{section}.{aliases(section, api)[0]}": (ROWS[api], section)
    for section in SECTIONS
    for api in public(section)
    if api in ROWS and ROWS[api].models
}


OF_SMALL_THINGS = ("metrics.", "activations.")


def rows(names, *marks):
    return [pytest.param(*ROWS_WITH_MODELS[name], id=name, marks=marks) for name in names]


def test_every_public_name_has_a_row():
    missing = [f"{section}.{api.__name__}" for section in SECTIONS for api in public(section) if api not in ROWS]
    assert not missing


def test_every_row_is_about_a_public_name():
    assert ROWS.keys() <= {api for section in SECTIONS for api in public(section)}


def test_the_document_says_what_the_rows_say():
    assert written_answers(DOCUMENT) == answers()


def test_at_most_one_row_in_twenty_of_those_with_a_gradient_says_no():
    refused, total = refused_share()
    assert refused <= 0.05 * total


@pytest.mark.parametrize(
    ("row", "section"),
    [
        # How each metric is finalised, and simple functions, have fast tests of their own.
        *rows(sorted(each for each in REPRESENTATIVES if not each.startswith(OF_SMALL_THINGS))),
        *rows(sorted(each for each in REPRESENTATIVES if each.startswith(OF_SMALL_THINGS)), pytest.mark.slow),
    ],
)
def test_first_model_of_a_row(row, section):
    measure(replace(row, models=dict([next(iter(row.models.items()))])), section)


@pytest.mark.slow
def test_the_rows_of_the_fast_suite_are_those_of_the_rule():
    assert set(found_anew()) == REPRESENTATIVES


@pytest.mark.slow
@pytest.mark.parametrize(("row", "section"), rows(ROWS_WITH_MODELS))
def test_row(row, section):
    measure(row, section)


def networks(*, slow):
    return [pytest.param(each, id=each.name) for each in ARCHITECTURES if each.slow == slow]


@pytest.mark.parametrize("network", networks(slow=False))
def test_network(network):
    measure_architecture(network)


@pytest.mark.slow
@pytest.mark.parametrize("network", networks(slow=True))
def test_deep_network(network):
    ((_, (_, complaint, _)),) = run_all([(NETWORKS, network.name)])
    assert not complaint
