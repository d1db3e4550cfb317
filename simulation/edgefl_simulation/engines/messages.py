"""Messages between the local engine and its workers, beside the vectors: all of it is our own, hence pickled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgefl_simulation.engines.base import Job, Setup, Worked

__all__ = ["Answers", "Begin", "Failure", "Order", "Orders", "Places", "Ready", "Reply", "put", "views"]

Places = Mapping[str, tuple[int, int]]
"""The places of vectors in a slot: its first element, and the one after its last."""


@dataclass(frozen=True)
class Begin:
    """The first message to a worker: what all jobs have in common, and the arena."""

    setup: Setup
    descriptor: int
    elements: int


@dataclass(frozen=True)
class Ready:
    """The first message from a worker."""


@dataclass(frozen=True)
class Order:
    """A job with the slots of its vectors: those to start from, and one for those that come of it."""

    job: Job
    base: int
    places: Places
    result: int


Orders = Sequence[Order]
"""The orders of one message: jobs that are short come together, as a message costs as much as one of them."""


@dataclass(frozen=True)
class Reply:
    """The result of a job; the update's sections lie in the job's slot."""

    worked: Worked
    places: Places


@dataclass(frozen=True)
class Failure:
    """The reason for which a worker could not do a job, beside all that is an outcome."""

    error: Exception


@dataclass(frozen=True)
class Answers:
    """The results of the jobs of one message, in their order, and the seconds that they took together."""

    each: Sequence[Reply | Failure]
    seconds: float


def put(vectors: Mapping[str, NDArray[np.float32]], slot: NDArray[np.float32]) -> Places:
    """Copies vectors into a slot, one behind the other."""
    places, start = {}, 0
    for name, vector in vectors.items():
        stop = start + vector.size
        slot[start:stop] = vector
        places[name] = (start, stop)
        start = stop
    return places


def views(places: Places, slot: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """The vectors in a slot, by name."""
    return {name: slot[start:stop] for name, (start, stop) in places.items()}
