"""Holds what a pass over a converted file is given, and what it leaves behind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgefl_converters.flatbuffer.file import FlatModel
from edgefl_converters.flatbuffer.graph_index import GraphIndex

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
    _indices: dict[int, GraphIndex] = field(default_factory=dict, init=False, repr=False)

    def index(self, subgraph: Any) -> GraphIndex:
        """Tells which ops make and read each tensor of a subgraph of the file.

        All passes share it. It is made anew once the subgraph has changed: no pass has to say that it changed one.
        """
        known = self._indices.get(id(subgraph))
        if known is None or not known.is_current():
            known = self._indices[id(subgraph)] = GraphIndex(subgraph)
        return known
