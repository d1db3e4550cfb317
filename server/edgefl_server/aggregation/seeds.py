"""Seeds that derive from the run's own seed, never from its id: equal seeds and devices give equal results."""

from __future__ import annotations

import hashlib

__all__ = ["codec_seed", "fold_seed", "task_seed"]


def task_seed(run_seed: int, cohort: int, device: str, turn: int = 0) -> int:
    """The 64-bit seed of one device's work: no two outcomes of a run that are accepted have the same.

    Args:
        run_seed: the run's.
        cohort: the number of the cohort.
        device: the device's id.
        turn: how many outcomes of the device in the cohort were accepted before. A task that takes the place of one
            without an accepted outcome has its seed: what it would have become, it becomes.
    """
    words = ["edgefl task", run_seed, cohort, device, *([turn] if turn else [])]
    digest = hashlib.sha256(" ".join(map(str, words)).encode()).digest()
    return int.from_bytes(digest[:8], "little")


def codec_seed(seed: int, section: str) -> int:
    """The 64-bit seed of what a codec draws to write one section of an outcome.

    Args:
        seed: the task's.
        section: its name.
    """
    digest = hashlib.sha256(f"edgefl codec {seed} {section}".encode()).digest()
    return int.from_bytes(digest[:8], "little")


def fold_seed(run_seed: int, fold: int) -> int:
    """The 64-bit seed of what the server draws in a fold.

    Args:
        run_seed: the run's.
        fold: the number of the fold.
    """
    digest = hashlib.sha256(f"edgefl fold {run_seed} {fold}".encode()).digest()
    return int.from_bytes(digest[:8], "little")
