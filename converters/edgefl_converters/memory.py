"""Knows how much memory this process may still take, and gives back what it no longer needs."""

from __future__ import annotations

import ctypes
import gc
import resource
from collections.abc import Iterator
from pathlib import Path

__all__ = ["available", "give_back"]

_MEMINFO = Path("proc/meminfo")
_OWN_GROUPS = Path("proc/self/cgroup")
_GROUPS = Path("sys/fs/cgroup")
_OWN_LIMITS, _OWN_SIZE = Path("proc/self/limits"), Path("proc/self/statm")
_ADDRESSES = "Max address space"
_UNLIMITED = 1 << 60
"""Version 1 of control groups says so large a number where there is no limit."""


def available(root: Path = Path("/")) -> int | None:
    """Bytes that may still be taken, free swap among them: of the machine, its control group, or by this process.

    Args:
        root: of the file system in which Linux tells of itself.

    Returns:
        None where it cannot be found out.
    """
    machine = _meminfo(root / _MEMINFO)
    limits = [*_groups(root), *_address_space(root)]
    if machine is not None:
        limits.append(machine)
    return max(0, min(limits)) if limits else None


def give_back() -> None:
    """Frees what only circles of references keep, and returns free memory to the system, where the C library can."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _meminfo(path: Path) -> int | None:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return None
    sizes = {name: int(size.split()[0]) << 10 for name, _, size in (line.partition(":") for line in lines) if size}
    return sizes["MemAvailable"] + sizes.get("SwapFree", 0) if "MemAvailable" in sizes else None


def _groups(root: Path) -> Iterator[int]:
    """Yields what is left of the limit of each control group that this process is in, and of those around it."""
    try:
        lines = (root / _OWN_GROUPS).read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, place = line.split(":", 2)
        if controllers == "":
            base, names = _GROUPS, ("memory.max", "memory.current")
        elif "memory" in controllers.split(","):
            base, names = _GROUPS / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes")
        else:
            continue
        group = Path(place.lstrip("/"))
        for each in (group, *group.parents):
            folder = root / base / each
            limit, used = (_number(folder / name) for name in names)
            if limit is not None and used is not None and limit < _UNLIMITED:
                # Cached pages of files count as used, and give way.
                yield limit - used + _cached(folder / "memory.stat")


def _address_space(root: Path) -> Iterator[int]:
    """Yields what is left of the addresses that this process may have (``ulimit -v``), where they are limited."""
    try:
        lines = (root / _OWN_LIMITS).read_text().splitlines()
        pages = int((root / _OWN_SIZE).read_text().split()[0])
    except OSError:
        return
    for line in lines:
        if line.startswith(_ADDRESSES):
            limit = line.removeprefix(_ADDRESSES).split()[0]
            if limit.isdigit():
                yield int(limit) - pages * resource.getpagesize()


def _number(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _cached(path: Path) -> int:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return 0
    sizes = dict(line.split(" ", 1) for line in lines if " " in line)
    return int(sizes.get("total_inactive_file", sizes.get("inactive_file", "0")))
