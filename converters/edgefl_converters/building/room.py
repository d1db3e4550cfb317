"""Foresees what a conversion takes, so that one that cannot end is refused before its work begins."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgefl.errors import MemoryShortageError, UnsupportedModelError
from edgefl_converters.memory import available
from edgefl_converters.training_step.specification import Specification

__all__ = ["LARGEST_FILE", "Weights", "memory_needed", "require_room"]

LARGEST_FILE = (1 << 31) - 1
"""Bytes of a TFLite file: its references are numbers of 32 bits, of which readers take 31."""
_GRAPHS = 16 << 20
"""Bytes of a file that are left for its graphs."""
_SMALL = 16 << 20
"""Bytes of weights up to which nothing is foreseen: then other things than weights take memory."""
_WORK = 600 << 20
"""Bytes that graphs and interpreters take beside weights; more where there are thousands of ops."""
_PER_FROZEN = {True: 5.0, False: 4.0}
"""Bytes that are taken for a byte of frozen weights, by whether the file is verified."""
_PER_TRAINED = {True: 30.0, False: 8.0}
"""Likewise for what training changes: the verification keeps it as it is after several steps, on all sides."""


@dataclass(frozen=True)
class Weights:
    """Bytes of a model.

    Attributes:
        frozen: of what nothing changes.
        trained: of weights and statistics that training changes.
        slots: of what the optimizer keeps beside them.
    """

    frozen: int
    trained: int
    slots: int

    @classmethod
    def of(cls, specification: Specification) -> Weights:
        """Measures a model as it is to be converted."""
        model = specification.model
        trained = _bytes(model.trainable_variables)
        return cls(_bytes(model.variables) - trained, trained, _bytes(specification.optimizer.variables))


def require_room(specification: Specification, *, verify: bool, free: int | None = None) -> None:
    """Checks that the file can be as large as it would be, and that the memory is there to make it.

    Args:
        specification: of the model.
        verify: whether the file is to be verified.
        free: bytes of memory that may still be taken; by default what the machine says.

    Raises:
        UnsupportedModelError: the file would be too large.
        MemoryShortageError: there is too little memory.
    """
    weights = Weights.of(specification)
    _require_fitting_file(weights)
    free = available() if free is None else free
    needed = memory_needed(weights, verify=verify)
    if free is None or weights.frozen + weights.trained <= _SMALL or needed <= free:
        return
    without = memory_needed(weights, verify=False)
    changed = weights.trained + weights.slots
    hint = "Use a machine with more memory, or end what takes it here."
    if verify and without <= free:
        hint += f" Without verification (`verify=False`) about {_told(without)} are enough."
    elif changed > weights.frozen:
        hint += (
            " Frozen weights need less: train some layers only (`trainable`, `last_layers`), or adapters (`lora_rank`)."
        )
    raise MemoryShortageError(
        f"Converting this model takes about {_told(needed)} of memory, and {_told(free)} may still be taken here: it "
        f"has {_told(weights.frozen)} of frozen weights, and training changes {_told(changed)}.",
        hint=hint,
    )


def memory_needed(weights: Weights, *, verify: bool) -> int:
    """Bytes that a conversion takes beside the model that is there, roughly, as measured (docs/converting.md).

    Args:
        weights: of the model.
        verify: whether the file is to be verified.
    """
    changed = weights.trained + weights.slots
    return _WORK + math.ceil(_PER_FROZEN[verify] * weights.frozen + _PER_TRAINED[verify] * changed)


def _require_fitting_file(weights: Weights) -> None:
    size = weights.frozen + weights.trained
    if size + _GRAPHS <= LARGEST_FILE:
        return
    raise UnsupportedModelError(
        f"The model has {_told(size)} of weights in float32, and a TFLite file can have {_told(LARGEST_FILE)}, the "
        "graphs of its signatures among it.",
        hint="Choose a smaller model: fewer or narrower layers, a smaller vocabulary. Or keep the first, frozen part "
        "as a model of its own that devices run before, and convert what is trained behind it. `quantize_frozen` does "
        "not help: the file is made in float32 first, to be compared with Keras.",
    )


def _bytes(variables: Iterable[Any]) -> int:
    return sum(
        math.prod(each.shape) * (np.dtype(each.dtype).itemsize if _is_plain(each.dtype) else 2) for each in variables
    )


def _is_plain(dtype: str) -> bool:
    return dtype not in ("bfloat16", "float8_e4m3fn", "float8_e5m2", "int4", "string")


def _told(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size < 1e10 else f"{size / 1e9:.0f} GB"
