"""Arguments that only a run has are refused by name, before anything is converted."""

from __future__ import annotations

import pytest

from edgefl import learning
from edgefl.errors import InvalidSettingError


def no_model():
    raise AssertionError("it is refused before")


@pytest.mark.parametrize(
    ("argument", "hint"),
    [
        ("down_codec", "down_codec="),
        ("codec", "codec="),
        ("model_distributor", "down_codec="),
        ("clip_norm", "clip_norm="),
    ],
)
@pytest.mark.parametrize("build", [learning.build_weighted_fed_avg, learning.build_unweighted_fed_avg])
def test_what_only_a_run_has_is_refused_with_where_to_find_it(build, argument, hint) -> None:
    with pytest.raises(InvalidSettingError, match=f"{argument} has no meaning here") as refused:
        build(no_model, **{argument: "drive"})
    assert hint in refused.value.hint


def test_what_nobody_has_is_an_argument_too_many_as_python_says_it() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'colour'"):
        learning.build_weighted_fed_avg(no_model, colour="red")
