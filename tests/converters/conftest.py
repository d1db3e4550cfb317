"""Makes the kernel parity harness a fixture, and keeps Python from looking through all of TensorFlow for garbage."""

from __future__ import annotations

import gc
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module", autouse=True)
def _set_aside() -> None:
    """What is alive before a module: imports, and graphs that TensorFlow keeps for ever.

    Otherwise each look for garbage, of which Keras orders one in every `clear_session`, goes through all of it again.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture
def kernel_parity(tmp_path: Path) -> Callable[[], Any]:
    """An empty collection of cases; see kernel_parity.py."""
    name = "edgefl_tests_kernel_parity"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name("kernel_parity.py"))
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name].KernelParity(tmp_path)
