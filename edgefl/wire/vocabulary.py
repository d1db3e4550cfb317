"""The open lists of the protocol: what a device may be asked, and what it may answer."""

from __future__ import annotations

from enum import IntEnum

__all__ = [
    "BatchPolicy",
    "Correction",
    "Elements",
    "OptimizerState",
    "OutcomeStatus",
    "Reason",
    "TaskKind",
    "Weighting",
]


class TaskKind(IntEnum):
    """The kinds of work that a device may be asked for."""

    TRAIN = 0
    EVALUATE = 1
    STATISTICS = 2
    GRADIENT = 3


class Correction(IntEnum):
    """The vectors that a device may add to the gradient in every local step."""

    NONE = 0
    SCAFFOLD = 1
    FEDDYN = 2


class BatchPolicy(IntEnum):
    """The ways to deal with the rows left over after the last full batch."""

    MODEL = 0
    PAD = 1
    DROP = 2
    REFILL = 3


class OptimizerState(IntEnum):
    """The ways to begin a task with the optimizer's slots."""

    RESET = 0
    KEEP = 1


class Weighting(IntEnum):
    """The ways in which a device may count in the weight section of a fold."""

    EXAMPLES = 0
    UNIFORM = 1


class Elements(IntEnum):
    """The kinds of elements that a section may consist of."""

    FLOATS = 0
    INTEGERS = 1
    BYTES = 2


class OutcomeStatus(IntEnum):
    """The ways in which a task may end on the device."""

    DONE = 0
    DECLINED = 1
    FAILED = 2


class Reason(IntEnum):
    """The reasons why a task was declined or failed: a list, since free text could carry data off the device."""

    NONE = 0
    BUSY = 1
    NO_DATA = 2
    NOT_READY = 3
    UNSUPPORTED_TASK = 4
    UNSUPPORTED_MODEL = 5
    DATA_MISMATCH = 6
    HASH_MISMATCH = 7
    OUT_OF_MEMORY = 8
    OUT_OF_DISK = 9
    OUT_OF_TIME = 10
    DIVERGED = 11
    INTERNAL = 12
    MEMORY_LOST = 13
