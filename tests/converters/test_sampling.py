"""Cases of the kernel parity harness stay the same when the project's code changes."""

from __future__ import annotations

import importlib.util
import sys

import pytest
from hypothesis import strategies as st

from sampling import sampled


@pytest.mark.parametrize(
    ("strategy", "constants"),
    [
        (st.integers(3_000_000, 3_999_999), range(3_000_000, 3_000_100)),
        (st.floats(7, 8), [7 + n / 64 for n in range(64)]),
    ],
)
def test_the_cases_do_not_depend_on_constants_of_modules_that_are_loaded(strategy, constants, tmp_path, monkeypatch):
    before = sampled(strategy, 300)
    path = tmp_path / "full_of_constants.py"
    path.write_text(f"NUMBERS = {list(constants)}\n")
    spec = importlib.util.spec_from_file_location("edgefl_full_of_constants", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setitem(sys.modules, spec.name, module)

    assert len(before) > 250
    assert sampled(strategy, 300) == before
