"""The root device of a run: it holds clean rows of the operator's own, and each round has an update of it as well.

FLTrust (Cao et al. 2021) calls these rows the root set. Any rule with a setting ``root_device`` has such a device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from edgefl_server.aggregation.settings import RunSettings

__all__ = ["apart", "root_device_of"]

One = TypeVar("One")


def root_device_of(settings: RunSettings) -> str:
    """The id of a run's root device; empty: its rule needs none."""
    return str(settings.hyperparameters.get("root_device") or "")


def apart(ones: Iterable[One], root: str, device_of: Callable[[One], str]) -> tuple[list[One], One | None]:
    """Those of the fleet, in their order, and that of the root device.

    Args:
        ones: what each device has one of.
        root: the id of the root device; empty: there is none.
        device_of: says whose one is.
    """
    fleet, own = list[One](), None
    for each in ones:
        if root and device_of(each) == root:
            own = each
        else:
            fleet.append(each)
    return fleet, own
