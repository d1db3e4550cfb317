"""What a folder says to somebody who goes on with other settings, another model or other data."""

from __future__ import annotations

import numpy as np
import pytest

import edgefl
from edgefl.errors import InvalidSettingError
from edgefl_simulation.changed_settings import changed
from edgefl_simulation.data import DataSet
from edgefl_simulation.preparing import fingerprint

AGES, KINDS = np.arange(600.0), np.arange(600) % 2


def of_data(arrays, owners=None):
    return {"data": fingerprint(DataSet(arrays, owners))}


def test_settings_are_named_with_what_they_are_there_and_here():
    before = {"rounds": 5, "until": {}, "profile": None, "engine": "local", "deadline_seconds": None}
    now = {"rounds": 6, "until": {"loss": 1.0}, "profile": {"devices": []}, "engine": "ray", "deadline_seconds": 9.0}
    assert changed(before, now) == [
        "{deadline_seconds} is none there, got 9.0",
        "{profile} is another one there",
        "{rounds} is 5 there, got 6",
        "{until} is another one there",
    ]
    assert changed({"engine": "http"}, {"engine": "ray"}) == ["{engine} is 'http' there, got 'ray'"]
    assert changed({"model": "a" * 64}, {"model": "b" * 64}) == ["model is aaaaaaaaaaaa… there, got bbbbbbbbbbbb…"]


@pytest.mark.parametrize(
    ("arrays", "owners", "said"),
    [
        ({"age": AGES + 1, "sick": KINDS}, None, "'age' has other values"),
        ({"age": AGES[:-1], "sick": KINDS[:-1]}, None, "'age' is <f8 of shape (600,) there, got <f8 of shape (599,)"),
        ({"age": AGES, "ill": KINDS}, None, "'sick' is missing"),
        ({"age": AGES, "sick": KINDS, "bmi": AGES}, None, "'bmi' is missing there"),
        ({"age": AGES, "sick": KINDS}, KINDS, "'the owner of each row' is missing there"),
    ],
)
def test_of_other_data_the_array_is_named_that_is_another_one(arrays, owners, said):
    assert changed(of_data({"age": AGES, "sick": KINDS}), of_data(arrays, owners)) == [
        f"{{data}} is not the same: {said}"
    ]


def test_a_batch_size_that_is_the_file_s_is_no_other_one(plain_sgd_file, owned_once, tmp_path):
    settings = {"devices": 6, "rounds": 1, "cohort": 3, "workers": 1, "out": tmp_path / "run", "resume": True}
    size = edgefl.TrainableModel(plain_sgd_file).manifest.batch_size
    edgefl.simulate(plain_sgd_file, owned_once, batch_size=size, **settings)
    edgefl.simulate(plain_sgd_file, owned_once, **settings)
    with pytest.raises(InvalidSettingError, match=f"batch_size is {size} there, got {size - 1}"):
        edgefl.simulate(plain_sgd_file, owned_once, batch_size=size - 1, **settings)
