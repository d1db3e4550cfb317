"""Decides what comes after a fold: another cohort, or the end of the run."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

__all__ = ["FAILED_FOLDS_IN_A_ROW", "Next", "Progress", "after_failure", "after_fold"]

FAILED_FOLDS_IN_A_ROW = 3
"""After so many the run gives up: what fails every device three times will fail them again."""


class Next(Enum):
    """The ways in which a run may go on."""

    COHORT = "the next devices are asked"
    GATHERING = "the next fold is gathered already"
    DONE = "the run is done"
    FAILED = "the run failed"


@dataclass(frozen=True)
class Progress:
    """Says what happens next, and for a run that ends early why.

    Attributes:
        next: what happens.
        why: for operators; empty where the run goes on, or is done with all of its rounds.
    """

    next: Next
    why: str = ""


def after_fold(fold: int, rounds: int, *, gathering: bool = False, enough: str = "") -> Progress:
    """Decides what comes after a fold that is part of the weights.

    Args:
        fold: its number, from 1.
        rounds: how many folds the run has.
        gathering: outcomes of a later fold are accepted already.
        enough: why the run is done before its last round; empty: it is not.
    """
    if enough:
        return Progress(Next.DONE, enough)
    if fold >= rounds:
        return Progress(Next.DONE)
    return Progress(Next.GATHERING if gathering else Next.COHORT)


def after_failure(
    fold: int, why: str, rounds: int, *, failed_in_a_row: int, any_done: bool, gathering: bool = False
) -> Progress:
    """Decides what comes after a fold that failed, which counts as one of the run's.

    Args:
        fold: its number, from 1.
        why: what it failed of.
        rounds: how many folds the run has.
        failed_in_a_row: how many of the latest failed, with this one; more than `FAILED_FOLDS_IN_A_ROW` need not be
            counted.
        any_done: some fold of the run is part of the weights.
        gathering: outcomes of a later fold are accepted already.
    """
    why = f"round {fold} failed: {why}"
    if failed_in_a_row >= FAILED_FOLDS_IN_A_ROW:
        return Progress(Next.FAILED, f"{FAILED_FOLDS_IN_A_ROW} rounds in a row failed; {why}")
    if fold >= rounds and not any_done:
        return Progress(Next.FAILED, why)
    return after_fold(fold, rounds, gathering=gathering)
