"""Passes by name: their order, further ones from outside, and what becomes of those that cannot be used."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import keras
import pytest
from keras import layers

import edgefl
from edgefl.errors import InvalidSettingError
from edgefl.model_file import ModelFile
from edgefl_converters.building.building import build
from edgefl_converters.flatbuffer import pipeline
from edgefl_converters.flatbuffer.pipeline import BUILT_IN, Pass, passes, register_pass, unregister_pass
from edgefl_converters.settings.options import Options


def hello(context):
    context.file.set_metadata("hello", b"world")


PASS_OF_THE_TEST = Pass("installed_hello", hello, after="control_dependencies")
CLASHING = Pass("scheduling", hello)
NO_PASS = "hello"


@pytest.fixture
def registered():
    yield register_pass(Pass("hello", hello, after="control_dependencies"))
    unregister_pass("hello")


@pytest.fixture
def entry_points(monkeypatch):
    """Lets some entry points be installed."""

    def install(**values):
        found = [EntryPoint(name, value, pipeline.GROUP) for name, value in values.items()]
        monkeypatch.setattr(pipeline, "entry_points", lambda group: found)
        pipeline._installed.cache_clear()

    yield install
    pipeline._installed.cache_clear()


def mlp():
    keras.utils.set_random_seed(4)
    model = keras.Sequential([keras.Input((20,)), layers.Dense(16, "relu"), layers.Dense(3)])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    return model


def order():
    return [each.name for each in passes()]


def test_each_pass_stands_behind_the_one_that_it_names():
    assert [each.after for each in BUILT_IN] == ["", *(each.name for each in BUILT_IN[:-1])]


def test_a_registered_pass_runs_in_every_conversion_until_it_is_left_out(registered, tmp_path):
    edgefl.convert(mlp(), tmp_path / "with.tflite", batch_size=4, verify=False)
    edgefl.convert(mlp(), tmp_path / "without.tflite", batch_size=4, verify=False, without_passes="hello")

    assert b"hello" in (tmp_path / "with.tflite").read_bytes()
    assert b"hello" not in (tmp_path / "without.tflite").read_bytes()
    ModelFile.read(tmp_path / "with.tflite").verify()


def test_passes_stand_behind_what_they_follow_in_the_order_in_which_they_came(registered):
    register_pass(Pass("second", hello, after="control_dependencies"))
    try:
        assert order()[-4:] == ["control_dependencies", "hello", "second", "names"]
    finally:
        unregister_pass("second")


def test_an_unknown_name_is_answered_with_the_nearest_before_the_work_starts():
    with pytest.raises(InvalidSettingError, match="no pass 'schedulling'") as caught:
        build(mlp(), batch_size=4, options=Options(without_passes="schedulling"))
    assert caught.value.hint == "Did you mean 'scheduling'?"


def test_a_pass_without_which_there_is_no_file_cannot_be_left_out():
    with pytest.raises(InvalidSettingError, match="cannot be left out"):
        build(mlp(), batch_size=4, options=Options(without_passes=["own_buffers"]))


@pytest.mark.parametrize(
    ("pass_", "message"),
    [(Pass("scheduling", hello), "already"), (Pass("mine", hello, after="schedulling"), "to follow 'schedulling'")],
)
def test_a_pass_that_clashes_or_follows_none_is_refused(pass_, message):
    with pytest.raises(InvalidSettingError, match=message):
        register_pass(pass_)
    assert order() == [each.name for each in BUILT_IN]


def test_an_installed_pass_runs(entry_points):
    entry_points(mine=f"{__name__}:PASS_OF_THE_TEST")

    assert "installed_hello" in order()
    assert b"hello" in build(mlp(), batch_size=4).data


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("nowhere_at_all:PASS", "No module named 'nowhere_at_all'"),
        (f"{__name__}:CLASHING", "There is a pass 'scheduling' already"),
        (f"{__name__}:NO_PASS", "it is a str, not a Pass"),
    ],
)
def test_an_installed_pass_that_cannot_be_used_is_named_and_leaves_the_others_working(entry_points, caplog, value, why):
    entry_points(bad=value, good=f"{__name__}:PASS_OF_THE_TEST")

    names = order()

    (said,) = [each.getMessage() for each in caplog.records if each.name.endswith(".pipeline")]
    assert said.startswith(f"The pass 'bad' ({value})")
    assert said.partition(" is left out: ")[2].startswith(why)
    assert names == [*(each.name for each in BUILT_IN[:-1]), "installed_hello", "names"]
