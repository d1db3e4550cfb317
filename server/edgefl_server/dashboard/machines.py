"""The kind of machine that a device says it is, in a few words; it may say anything that JSON can."""

from __future__ import annotations

from typing import Any

__all__ = ["machine_of"]

_LONGEST = 40


def machine_of(said: Any) -> str:
    """Processor, memory and interpreters; empty where it says nothing of the kind."""
    if not isinstance(said, dict):
        return ""
    machine, memory, runtimes = said.get("machine"), said.get("memory_bytes"), said.get("runtimes")
    words = [machine[:_LONGEST]] if isinstance(machine, str) and machine else []
    if isinstance(memory, int) and not isinstance(memory, bool) and 0 < memory < 2**60:
        words.append(f"{memory / 2**30:.3g} GiB" if memory >= 2**30 else f"{memory / 2**20:.0f} MiB")
    if isinstance(runtimes, list):
        words.extend(each[:_LONGEST] for each in runtimes[:3] if isinstance(each, str))
    return ", ".join(words)
