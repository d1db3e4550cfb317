"""Memory that a process and its workers share: slots of one size, in a file without a name that ends with them."""

from __future__ import annotations

import mmap
import os

import numpy as np
from numpy.typing import NDArray

__all__ = ["Arena"]


class Arena:
    """Slots of float32, as many as are asked for; memory is taken when a slot is first written.

    Args:
        descriptor: of the file, which `create` makes and a worker inherits.
        elements: of a slot.
    """

    def __init__(self, descriptor: int, elements: int) -> None:
        self.descriptor, self.elements = descriptor, elements
        self._bytes = max(1, -(-4 * elements // mmap.PAGESIZE)) * mmap.PAGESIZE
        self._map: mmap.mmap | None = None
        self._free: list[int] = []
        self._slots = 0

    @classmethod
    def create(cls, elements: int) -> Arena:
        """Makes a new one.

        Args:
            elements: of a slot.
        """
        return cls(os.memfd_create("edgefl", os.MFD_CLOEXEC), elements)

    def take(self) -> int:
        """The number of a slot that nobody else has; for the process that made the arena."""
        if not self._free:
            os.ftruncate(self.descriptor, (self._slots + 1) * self._bytes)
            self._free.append(self._slots)
            self._slots += 1
        return self._free.pop()

    def give_back(self, slot: int) -> None:
        """Says that a slot is not needed any more; it is the next one to be taken, since its memory is there."""
        self._free.append(slot)

    def view(self, slot: int) -> NDArray[np.float32]:
        """A slot's memory, float32 ``[elements]``."""
        end = (slot + 1) * self._bytes
        if self._map is None or len(self._map) < end:
            # Views of the smaller map keep it alive for as long as they are used.
            self._map = mmap.mmap(self.descriptor, os.fstat(self.descriptor).st_size)
        return np.frombuffer(self._map, np.float32, self.elements, slot * self._bytes)
