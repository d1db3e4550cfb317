"""What a pass over a converted file is given, and what it leaves behind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edgefl_converters.flatbuffer.file import FlatModel

__all__ = ["PassContext"]


@dataclass
class PassContext:
    """One file on its way through the passes.

    Attributes:
        file: changed in place.
        target: the runtimes that the file is made for, a name of `edgefl.targets`.
        initial_values: of the parameters, by their shared names in the file.
        storage: how frozen weights are stored, of `frozen_storage.FORMATS`; None for float32.
        frozen: whether the op whose first output has a name was made by a layer with frozen weights.
        buffers: filled by a pass: shared name of each parameter to the buffer of its initial value.
        stored: filled by a pass: how many constants are stored in fewer bytes.
    """

    file: FlatModel
    target: str
    initial_values: Mapping[str, NDArray[np.generic]] = field(default_factory=dict)
    storage: str | None = None
    frozen: Callable[[str], bool] = lambda output: False
    buffers: dict[str, int] = field(default_factory=dict)
    stored: int = 0
