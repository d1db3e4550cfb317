"""Decides whether what a device says that it can do suffices for a task.

A device says what it can do when it enrols (docs/protocol.md). Whatever it does not say, or says in another form,
restricts nothing: it then gets every task, and declines those that it does not know.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Any

from edgefl.codecs import codec_parts
from edgefl.targets import ALL, TARGETS
from edgefl.wire.messages import PROTOCOL_VERSION, Task

__all__ = ["lacks", "least_memory"]

_VECTORS = 3
"""Vectors of the model's size: the received weights, the interpreter's, and the delta."""


def lacks(capabilities: Mapping[str, Any], task: Task, target: str = ALL) -> str | None:
    """Says what a device lacks to do a task, as the end of a sentence that begins with the device; None: nothing.

    Args:
        capabilities: what it says about itself, which may be anything that JSON can say.
        task: for it.
        target: what the task's model file was made for, a name of `edgefl.targets`.
    """
    protocol = _number(capabilities, "protocol")
    if protocol is not None and protocol != PROTOCOL_VERSION:
        return f"speaks protocol version {protocol}, and this edgefl {PROTOCOL_VERSION}"
    wanted = [
        ("kinds", [_name(task.kind)]),
        ("corrections", [_name(task.correction)]),
        ("weightings", [_name(task.weighting)]),
        ("codecs", [part for each in task.codecs for part in codec_parts(each.codec)]),
        ("payloads", [each.name for each in task.payloads]),
    ]
    for what, words in wanted:
        known = _words(capabilities, what)
        if known is not None and (missing := [word for word in words if word not in known]):
            return f"lacks {missing[0]!r} among its {what}"
    runtimes, runtime = _words(capabilities, "runtimes"), TARGETS.get(target)
    if runtimes is not None and runtime is not None and runtime.runtime not in runtimes:
        return f"lacks {runtime.runtime}, which the model file was made for"
    memory = _number(capabilities, "memory_bytes")
    if memory is not None and memory < least_memory(task):
        return f"has {memory} bytes of memory, and the task's vectors alone take {least_memory(task)}"
    return None


def least_memory(task: Task) -> int:
    """Bytes that a task needs whatever its model is: those of its vectors; 0 where it does not say."""
    return _VECTORS * task.base_weights_bytes + sum(each.bytes for each in task.extra_vectors)


def _number(capabilities: Mapping[str, Any], what: str) -> int | None:
    value = capabilities.get(what)
    return value if type(value) is int else None  # which true and false are not, in JSON


def _words(capabilities: Mapping[str, Any], what: str) -> list[str] | None:
    words = capabilities.get(what)
    return words if isinstance(words, list) and all(isinstance(word, str) for word in words) else None


def _name(value: int) -> str:
    return value.name.lower() if isinstance(value, IntEnum) else str(value)
