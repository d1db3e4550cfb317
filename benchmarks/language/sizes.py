"""The models as data, and the files that contenders share; numpy only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

__all__ = ["PROJECTIONS", "RANK", "RATE", "SIZES", "Size", "batch_of", "causal_mask", "read", "rotations", "write"]

RANK = 8
RATE = 0.5
"""Of plain SGD: large enough that a few steps are seen in the loss."""
PROJECTIONS = ("query", "key", "value", "output", "gate", "up", "down")
"""Dense layers of a block; each has an adapter."""


class Size(NamedTuple):
    """One model: Llama's blocks (Touvron et al. 2023) with grouped queries (Ainslie et al. 2023).

    Attributes:
        vocabulary: how many tokens there are.
        width: of what travels between blocks.
        blocks: how many.
        heads: of the queries.
        groups: heads of keys and values.
        hidden: width within a block's gated layers (SwiGLU).
        rows: sequences of a batch.
        length: tokens of a sequence.
    """

    vocabulary: int
    width: int
    blocks: int
    heads: int
    groups: int
    hidden: int
    rows: int
    length: int

    @property
    def head_width(self) -> int:
        """Numbers of a head."""
        return self.width // self.heads

    def outputs(self, projection: str) -> int:
        """Width of what a projection makes."""
        if projection in ("key", "value"):
            return self.groups * self.head_width
        return self.hidden if projection in ("gate", "up") else self.width


SIZES = {
    "1M": Size(1_000, 128, 4, 4, 2, 344, 2, 64),
    "10M": Size(4_096, 320, 6, 5, 5, 864, 2, 64),
    "30M": Size(4_096, 512, 9, 8, 8, 1_376, 1, 64),
    "125M": Size(28_000, 768, 12, 12, 12, 2_048, 1, 64),
}


def causal_mask(size: Size) -> np.ndarray[Any, Any]:
    """What is added to scores, float32 ``[length, length]``: nothing where a token may look."""
    return np.triu(np.full((size.length, size.length), -1e9, np.float32), 1)


def rotations(size: Size) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Cosines and sines of rotary positions (Su et al. 2021), float32 ``[length, 1, head width]`` each."""
    half = size.head_width // 2
    angles = np.arange(size.length)[:, None] / 10_000 ** (np.arange(half) / half)
    both = np.concatenate([angles, angles], axis=1)[:, None]
    return np.cos(both).astype(np.float32), np.sin(both).astype(np.float32)


def batch_of(size: Size) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Tokens and the tokens that follow, int32 ``[rows, length]`` each."""
    drawn = np.random.default_rng(1).integers(0, size.vocabulary, (size.rows, size.length + 1)).astype(np.int32)
    return drawn[:, :-1].copy(), drawn[:, 1:].copy()


def write(folder: Path, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """Writes weights by name, a file each, so that a reader can map them."""
    folder.mkdir(parents=True, exist_ok=True)  # as a run leaves it that was interrupted
    for index, array in enumerate(arrays.values()):
        np.save(folder / f"{index}.npy", array)
    (folder / "names.json").write_text(json.dumps(list(arrays)))


def read(folder: Path) -> dict[str, np.ndarray[Any, Any]]:
    """The weights by name, mapped: pages are read when they are looked at, and written to a copy."""
    names = json.loads((folder / "names.json").read_text())
    return {name: np.load(folder / f"{index}.npy", mmap_mode="c") for index, name in enumerate(names)}
