from __future__ import annotations

import pytest

from edgefl_server.aggregation import Next, Progress, after_failure, after_fold


@pytest.mark.parametrize(
    ("fold", "gathering", "expected"), [(1, False, Next.COHORT), (2, True, Next.GATHERING), (3, True, Next.DONE)]
)
def test_after_a_fold_the_next_devices_are_asked_unless_its_outcomes_come_already_or_it_was_the_last(
    fold: int, gathering: bool, expected: Next
) -> None:
    assert after_fold(fold, 3, gathering=gathering) == Progress(expected)


def test_a_failed_fold_counts_as_one_of_the_runs_and_the_run_goes_on() -> None:
    assert after_failure(1, "late", 3, failed_in_a_row=1, any_done=False).next is Next.COHORT
    assert after_failure(2, "late", 3, failed_in_a_row=2, any_done=False).next is Next.COHORT
    assert after_failure(3, "late", 3, failed_in_a_row=1, any_done=True) == Progress(Next.DONE)


def test_a_run_fails_after_three_in_a_row_or_when_none_of_its_folds_is_part_of_the_weights() -> None:
    three = after_failure(7, "late", 9, failed_in_a_row=3, any_done=True)
    assert three == Progress(Next.FAILED, "3 rounds in a row failed; round 7 failed: late")
    none = after_failure(2, "late", 2, failed_in_a_row=2, any_done=False)
    assert none == Progress(Next.FAILED, "round 2 failed: late")
