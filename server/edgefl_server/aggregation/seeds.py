"""Seeds that derive from the run's own seed, never from its id: equal seeds and devices give equal results."""

from __future__ import annotations

import hashlib

__all__ = ["codec_seed", "task_seed"]


def task_seed(run_seed: int, round_number: int, device: str) -> int:
    """The 64-bit seed of one device's work in one round; a second attempt in the round has the same."""
    digest = hashlib.sha256(f"edgefl task {run_seed} {round_number} {device}".encode()).digest()
    return int.from_bytes(digest[:8], "little")


def codec_seed(seed: int, section: str) -> int:
    """The 64-bit seed of what a codec draws to write one section of an outcome.

    Args:
        seed: the task's.
        section: its name.
    """
    digest = hashlib.sha256(f"edgefl codec {seed} {section}".encode()).digest()
    return int.from_bytes(digest[:8], "little")
