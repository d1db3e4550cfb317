"""Says which tests took how much of the processors: `pytest --processor-time`.

For all of them: `PYTEST_ADDOPTS=--processor-time make test`. `--durations` counts the seconds of a clock, which on two
cores with four test processes say more about the others. Here a test is charged with what this process and the children
that it has waited for used meanwhile; a fixture is charged to the test that asked for it first, and what happens before
the first test to "imports and collection".
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Generator
from typing import Any

import pytest

__all__ = ["ProcessorTime"]

MOST = 25


class ProcessorTime:
    """A plugin of pytest's that keeps the accounts of one session."""

    def __init__(self) -> None:
        self.tests: Counter[str] = Counter()

    def pytest_collection_finish(self) -> None:
        self.tests["imports and collection"] = used()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, Any, Any]:
        before = used()
        try:
            return (yield)
        finally:
            self.tests[item.nodeid] += used() - before

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        files: Counter[str] = Counter()
        for name, seconds in self.tests.items():
            files[name.split("::")[0]] += seconds
        for what, accounts in (("files", files), ("tests", self.tests)):
            terminalreporter.section(f"{what} that took most of the processors, in seconds")
            for name, seconds in accounts.most_common(MOST):
                terminalreporter.write_line(f"{seconds:8.1f}  {name}")
        terminalreporter.write_line(f"{sum(files.values()):8.1f}  altogether")


def used() -> float:
    """Seconds of processors that this process and the children that have ended have used so far."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
