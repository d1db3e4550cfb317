"""Small things that whoever handles the object form of TensorFlow's schema needs."""

from __future__ import annotations

from typing import Any

__all__ = ["append", "text_of"]


def append(items: Any, item: Any) -> int:
    """Appends an item to a list and returns its index, by which the schema refers to it."""
    items.append(item)
    return len(items) - 1


def text_of(name: bytes | str) -> str:
    """A name as text: the schema reads names as bytes and takes both."""
    return name.decode() if isinstance(name, bytes) else name
