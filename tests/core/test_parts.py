import importlib.util
import sys

import pytest

import edgefl
from edgefl.parts import FACADE, VERBS, install_line, load


def test_every_verb_and_every_public_name_exists_where_the_table_says() -> None:
    # The modules are looked up, not imported: this process must stay free of TensorFlow.
    for part in [*FACADE.values(), *(verb.part for verb in VERBS.values())]:
        assert importlib.util.find_spec(part.module) is not None, part.module


def test_the_facade_lists_what_it_resolves() -> None:
    assert set(FACADE) <= set(edgefl.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        edgefl.nothing  # noqa: B018


def test_a_module_of_edgefl_that_is_missing_is_a_defect_and_not_a_missing_dependency() -> None:
    from edgefl.parts import Part

    with pytest.raises(ModuleNotFoundError):
        load(Part("edgefl_no_such_part", "device"))


def test_inside_an_environment_the_install_line_uses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "prefix", "/home/pi/env")
    monkeypatch.setattr(sys, "base_prefix", "/usr")
    assert install_line("device").startswith(f"{sys.executable} -m pip install")


def test_outside_an_environment_the_install_line_makes_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "prefix", "/usr")
    monkeypatch.setattr(sys, "base_prefix", "/usr")
    line = install_line("device")
    assert line.startswith(f"{sys.executable} -m venv edgefl-env && edgefl-env/bin/python -m pip install")
    assert line.endswith('"edgefl-toolkit[device]"')
