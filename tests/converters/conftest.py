"""Makes the kernel parity harness a fixture."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


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
