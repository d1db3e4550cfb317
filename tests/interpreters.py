"""Which TFLite interpreters must be there when the tests run: both, or what there are wheels of for this Python."""

from __future__ import annotations

import sys

import pytest

from edgefl.targets import CHOICES, RUNTIMES

__all__ = ["EXPECTED", "NO_WHEEL", "ONLY_ONE", "each_choice", "each_interpreter", "needs_tflite_runtime"]

ONLY_ONE = sys.version_info >= (3, 12)
NO_WHEEL = "tflite-runtime has no wheel for Python 3.12 and newer"

EXPECTED = tuple(RUNTIMES)[: 1 if ONLY_ONE else None]
"""Distributions, the faster one first. They follow from the Python, not from what is found: one must not be missing."""

needs_tflite_runtime = pytest.mark.skipif(ONLY_ONE, reason=NO_WHEEL)


def each_interpreter() -> list[object]:
    """All distributions as a test's parameters; what this Python has no wheel of is skipped, and counted at the end."""
    return [_parameter(name) for name in RUNTIMES]


def each_choice() -> list[object]:
    """Likewise, all that a device may be told to train with: also LiteRT's CompiledModel."""
    return [_parameter(name) for name in CHOICES]


def _parameter(name: str) -> object:
    return pytest.param(name, marks=needs_tflite_runtime if name == "tflite-runtime" and ONLY_ONE else ())
