"""Every random choice of training as a function of (seed, epoch, step), the same on every platform.

Only raw output of Philox (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") is used: numpy promises
that its stream never changes, which it does not promise for `Generator.permutation` and the like.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgefl.errors import InvalidSettingError

__all__ = ["check_seed", "row_order", "step_seeds"]

_ORDER, _STEPS = 0, 1


def check_seed(seed: int) -> int:
    """Returns the seed as an int.

    Raises:
        InvalidSettingError: it is not a whole number of at least 0.
    """
    if isinstance(seed, (bool, np.bool_)) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise InvalidSettingError(f"The seed must be a whole number of at least 0, got {seed!r}.")
    return int(seed)


def row_order(rows: int, seed: int, epoch: int) -> NDArray[np.intp]:
    """The order in which an epoch visits the rows: those sorted by one random 64-bit number each.

    Returns:
        A permutation of ``range(rows)``, shape ``[rows]``.
    """
    return np.argsort(_stream(seed, epoch, _ORDER).random_raw(rows), kind="stable")


def step_seeds(steps: int, seed: int, epoch: int) -> NDArray[np.int32]:
    """One seed for each step of an epoch, of which a model draws its dropout masks and noise; shape ``[steps]``.

    A prefix does not depend on `steps`.
    """
    return (_stream(seed, epoch, _STEPS).random_raw(steps) >> np.uint64(32)).astype(np.uint32).view(np.int32)


def _stream(seed: int, epoch: int, purpose: int) -> np.random.Philox:
    return np.random.Philox(np.random.SeedSequence(seed, spawn_key=(epoch, purpose)))
