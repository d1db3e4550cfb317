"""Cases drawn by hypothesis into a list, for the kernel parity harness converts all cases of a test at once."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import SearchStrategy

__all__ = ["sampled"]


def sampled(strategy: SearchStrategy[Any], count: int) -> list[Any]:
    """Up to ``count`` different cases, the same ones every time.

    Args:
        strategy: what a case is.
        count: how many.
    """
    cases: dict[str, Any] = {}

    @settings(
        max_examples=count, database=None, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck)
    )
    @given(strategy)
    def collect(case: Any) -> None:
        cases.setdefault(repr(case), case)

    collect()
    return list(cases.values())
