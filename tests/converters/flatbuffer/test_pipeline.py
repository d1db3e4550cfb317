"""Passes by name: their order, further ones from outside, and what becomes of those that cannot be used."""

from __future__ import annotations

import pkgutil
import re
import sys
from pathlib import Path

import keras
import pytest
from keras import layers

import edgefl
from edgefl.errors import InvalidSettingError
from edgefl.model_file import ModelFile
from edgefl_converters.building.building import build
from edgefl_converters.flatbuffer import passes
from edgefl_converters.flatbuffer.passes import PASSES, ordered_passes, register_pass
from edgefl_converters.flatbuffer.pipeline import chosen_passes
from edgefl_converters.settings.options import Options

OWN = [
    "flat_products",
    "shared_slopes",
    "right_forms",
    "packed_convolutions",
    "int8_products",
    "one_copy",
    "frozen_constants",
    "own_buffers",
    "equal_buffers",
    "repeated_constants",
    "repeated_outputs",
    "primary_signature",
    "transposed_kernels",
    "variable_reads",
    "scheduling",
    "rematerialising",
    "control_dependencies",
    "names",
]
DOCUMENT = Path(__file__).parents[3] / "docs" / "lowerings.md"


@pytest.fixture(autouse=True)
def _own_passes(monkeypatch):
    """What a test registers is gone after it, and entry points are looked for anew."""
    monkeypatch.setattr(PASSES, "_entries", {name: PASSES.get(name) for name in PASSES.names() if name in OWN})
    monkeypatch.setattr(PASSES, "_searched", False)


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Installs a distribution with a module ``plugin_of_the_test`` and entry points that name things in it."""
    monkeypatch.syspath_prepend(tmp_path)

    def install(module, **entries):
        info = tmp_path / "plugins-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugins\nVersion: 1.0\n")
        named = "".join(f"{name} = {value}\n" for name, value in entries.items())
        (info / "entry_points.txt").write_text(f"[{PASSES.group}]\n{named}")
        (tmp_path / "plugin_of_the_test.py").write_text(module)

    yield install
    sys.modules.pop("plugin_of_the_test", None)


MODULE = """
from edgefl_converters.flatbuffer.passes import Pass

def hello(context):
    context.file.set_metadata("hello", b"world")

GOOD = Pass("good", hello, after="control_dependencies")
CLASHING = Pass("scheduling", hello, after="variable_reads")
LOST = Pass("lost", hello, after="schedulling")
"""


def hello(context):
    context.file.set_metadata("hello", b"world")


def mlp():
    keras.utils.set_random_seed(4)
    model = keras.Sequential([keras.Input((20,)), layers.Dense(16, "relu"), layers.Dense(3)])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    return model


def order():
    return [each.name for each in ordered_passes()]


def test_each_of_the_folders_modules_is_a_pass_of_its_name_and_runs_at_its_place():
    modules = {each.name for each in pkgutil.iter_modules(passes.__path__)} - {"base"}

    assert modules == set(OWN)
    assert order() == OWN


def test_the_documentation_lists_them_in_their_order():
    rows = re.findall(r"^\| `(\w+)` \|.*\| (yes|no) \|$", DOCUMENT.read_text(), re.MULTILINE)

    assert rows == [(each.name, "no" if each.required else "yes") for each in ordered_passes()]


def test_a_registered_pass_runs_in_every_conversion_until_it_is_left_out(tmp_path):
    register_pass("hello", after="control_dependencies")(hello)
    edgefl.convert(mlp(), tmp_path / "with.tflite", batch_size=4, verify=False)
    edgefl.convert(mlp(), tmp_path / "without.tflite", batch_size=4, verify=False, without_passes="hello")

    assert b"hello" in (tmp_path / "with.tflite").read_bytes()
    assert b"hello" not in (tmp_path / "without.tflite").read_bytes()
    ModelFile.read(tmp_path / "with.tflite").verify()


def test_a_pass_stands_right_behind_what_it_follows_the_latest_first():
    register_pass("first", after="control_dependencies")(hello)
    register_pass("second", after="control_dependencies")(hello)
    register_pass("third", after="first")(hello)

    assert order() == [*OWN[:-1], "second", "first", "third", "names"]


def test_an_unknown_name_is_answered_with_the_nearest_before_the_work_starts():
    with pytest.raises(InvalidSettingError, match="Unknown pass 'schedulling'") as caught:
        build(mlp(), batch_size=4, options=Options(without_passes="schedulling"))
    assert caught.value.hint == "Did you mean scheduling?"


def test_a_pass_without_which_there_is_no_file_cannot_be_left_out():
    with pytest.raises(InvalidSettingError, match="'own_buffers' cannot be left out") as caught:
        chosen_passes(["own_buffers"])
    assert caught.value.hint is not None
    assert "own_buffers" not in caught.value.hint
    assert "flat_products" in caught.value.hint


def test_a_pass_whose_name_is_taken_is_refused():
    with pytest.raises(InvalidSettingError, match="'scheduling' is registered already"):
        register_pass("scheduling", after="variable_reads")(hello)
    assert order() == OWN


def test_a_pass_that_follows_none_is_named_with_the_nearest():
    register_pass("mine", after="schedulling")(hello)

    with pytest.raises(InvalidSettingError, match="'mine' has no place: it is to follow 'schedulling'") as caught:
        order()
    assert caught.value.hint == "Did you mean scheduling?"


def test_an_installed_pass_runs(install):
    install(MODULE, good="plugin_of_the_test:GOOD")

    assert order() == [*OWN[:-1], "good", "names"]
    assert b"hello" in build(mlp(), batch_size=4).data


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("bad", "nowhere_at_all:PASS", "No module named 'nowhere_at_all'"),
        ("scheduling", "plugin_of_the_test:CLASHING", "'scheduling' is registered already"),
        ("bad", "plugin_of_the_test:GOOD", "it is no Pass of the name 'bad'"),
        ("bad", "plugin_of_the_test:hello", "it is no Pass of the name 'bad'"),
        ("lost", "plugin_of_the_test:LOST", "it is to follow 'schedulling', which is none. Did you mean scheduling?"),
    ],
)
def test_an_installed_pass_that_cannot_be_used_is_named_and_leaves_the_others_working(
    install, caplog, name, value, why
):
    install(MODULE, **{name: value, "good": "plugin_of_the_test:GOOD"})

    assert order() == [*OWN[:-1], "good", "names"]
    (told,) = [each.getMessage() for each in caplog.records]
    assert told.startswith(f"The pass {name!r} ({value}) of plugins is left out: ")
    assert why in told
