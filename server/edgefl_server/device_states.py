"""The states that an enrolled device can be in, as operators see them."""

from __future__ import annotations

from enum import Enum

__all__ = ["DeviceState"]


class DeviceState(str, Enum):
    """Whether a device gets work: blocked ones come back by themselves, removed ones never."""

    active = "active"
    blocked = "blocked"
    removed = "removed"
