"""Cases drawn by hypothesis into a list, for the kernel parity harness converts all cases of a test at once."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.internal.conjecture.providers import AVAILABLE_PROVIDERS, HypothesisProvider
from hypothesis.strategies import SearchStrategy

__all__ = ["sampled"]

_BACKEND = "edgefl"


class _WithoutConstants(HypothesisProvider):
    """Draws from the seed alone.

    Hypothesis's own also draws constants that it finds in every module of the project that is loaded, even when
    derandomized, so that any change of the code changes the cases, and so does the order of the tests.
    """

    def _maybe_draw_constant(self, *args: Any, **keywords: Any) -> None:
        # Private, but the one place that asks for them: without it every kind of value had to be drawn here.
        return None


AVAILABLE_PROVIDERS[_BACKEND] = _WithoutConstants


def sampled(strategy: SearchStrategy[Any], count: int) -> list[Any]:
    """Up to ``count`` different cases, the same ones every time: only another version of Hypothesis changes them.

    Args:
        strategy: what a case is.
        count: how many.
    """
    cases: dict[str, Any] = {}

    # A seed of its own, for ``derandomize`` makes one from the source of ``collect``.
    @seed(0)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        backend=_BACKEND,
        phases=[Phase.generate],
    )
    @given(strategy)
    def collect(case: Any) -> None:
        cases.setdefault(repr(case), case)

    collect()
    return list(cases.values())
