"""Names and what they stand for, also from entry points of distributions that lie on the path."""

import logging
import sys

import pytest

from edgefl.errors import CodecError, InvalidSettingError
from edgefl.plugins import Registry


@pytest.fixture
def on_path(tmp_path, monkeypatch):
    """Installs distributions: a name, its entry points, and modules."""
    monkeypatch.syspath_prepend(tmp_path)

    def install(name, entries, **modules):
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text("[edgefl.tests]\n" + "".join(f"{each}\n" for each in entries))
        for module, text in modules.items():
            (tmp_path / f"{module}.py").write_text(text)

    yield install
    for name in [name for name in sys.modules if name.startswith("plugin_")]:
        del sys.modules[name]


def _registry(**options):
    registry = Registry("thing", "edgefl.tests", **options)
    registry.register("mean")(1)
    return registry


def test_an_entry_is_found_by_its_name():
    assert _registry().get("mean") == 1


def test_a_decorated_class_is_itself():
    registry = _registry()

    @registry.register("median")
    class Median:
        pass

    assert registry.get("median") is Median
    assert registry.names() == ("mean", "median")


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(InvalidSettingError, match="Unknown thing 'maen', expected one of mean") as caught:
        _registry().get("maen")
    assert caught.value.hint == "Did you mean mean?"


def test_a_registry_says_which_error_it_raises():
    with pytest.raises(CodecError):
        _registry(error=CodecError).get("other")


@pytest.mark.parametrize("name", ["", "Mean", "a b", "-a", "a" * 65, "a/b"])
def test_what_is_no_name_is_refused(name):
    with pytest.raises(InvalidSettingError, match="expects 1 to 64"):
        _registry().register(name)(2)


def test_a_name_is_taken_once():
    with pytest.raises(InvalidSettingError, match="registered already"):
        _registry().register("mean")(2)


def test_an_entry_point_is_an_entry(on_path):
    on_path("good", ["median = plugin_good:THING"], plugin_good="THING = 7")
    assert _registry().get("median") == 7
    assert _registry().names() == ("mean", "median")


def test_what_fails_to_import_clashes_or_is_something_else_is_named_once_and_leaves_the_others(on_path, caplog):
    on_path("good", ["median = plugin_good:THING"], plugin_good="THING = 7")
    on_path("broken", ["broken = plugin_broken:THING"], plugin_broken="raise RuntimeError('no such luck')")
    on_path("absent", ["absent = plugin_absent:THING"])
    on_path("taken", ["mean = plugin_good:THING"])
    on_path("other", ["text = plugin_other:THING"], plugin_other="THING = 'text'")

    def check(name, entry):
        if not isinstance(entry, int):
            raise InvalidSettingError(f"{name} is no number.")

    registry = _registry(check=check)
    with caplog.at_level(logging.WARNING):
        assert registry.names() == ("mean", "median")
        assert registry.get("median") == 7
        assert registry.get("mean") == 1
        registry.names()
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 4
    assert any("'broken' (plugin_broken:THING) of broken is left out: no such luck" in line for line in lines)
    assert any("'absent'" in line and "plugin_absent" in line for line in lines)
    assert any("'mean'" in line and "registered already" in line for line in lines)
    assert any("'text'" in line and "no number" in line for line in lines)


def test_of_two_distributions_with_one_name_the_first_has_it(on_path, caplog):
    on_path("second", ["median = plugin_second:THING"], plugin_second="THING = 2")
    on_path("first", ["median = plugin_first:THING"], plugin_first="THING = 1")
    assert _registry().get("median") == 1
    assert "of second is left out" in caplog.text


def test_a_module_that_registers_its_entry_itself_may_also_be_named_by_an_entry_point(on_path, caplog):
    on_path("both", ["mean = plugin_both:THING"], plugin_both="THING = 1")
    assert _registry().names() == ("mean",)
    assert not caplog.records


def test_its_own_entries_are_found_without_looking_for_others(on_path, caplog):
    on_path("broken", ["broken = plugin_broken:THING"], plugin_broken="raise RuntimeError")
    assert _registry().get("mean") == 1
    assert not caplog.records
