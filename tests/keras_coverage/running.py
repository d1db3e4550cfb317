"""Runs one row or network by its name, in a process of its own."""

from __future__ import annotations

import time
from typing import Any

from keras_coverage.architectures import ARCHITECTURES
from keras_coverage.families import ROWS
from keras_coverage.measuring import measure, measure_architecture
from keras_coverage.public import public

__all__ = ["NETWORKS", "run"]

NETWORKS = "architectures"


def run(section: str, name: str) -> tuple[Any, str, float]:
    """Runs one row or network; returns what came out, what was wrong, and the seconds that it took."""
    start = time.monotonic()
    try:
        if section == NETWORKS:
            outcome: Any = measure_architecture(next(each for each in ARCHITECTURES if each.name == name))
        else:
            outcome = measure(ROWS[next(api for api in public(section) if api.__name__ == name)], section)
    except Exception as error:
        return None, f"{type(error).__name__}: {str(error)[:1000]}", time.monotonic() - start
    return outcome, "", time.monotonic() - start
