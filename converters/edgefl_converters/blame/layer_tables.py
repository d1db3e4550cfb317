"""Says what became of each layer, as text; imports no TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["as_table"]


def as_table(layers: Mapping[str, Mapping[str, Any]]) -> str:
    """As text for people: a line for each layer, and under it its ops.

    Args:
        layers: as in a conversion report.
    """
    lines = []
    for maker, layer in layers.items():
        values = f": {layer['parameters']:,} values, {layer['training']}" if layer["training"] else ""
        lines.append(f"{maker}{values}")
        rows = [("kept", layer["kept"]), ("lowered", layer["lowered"]), ("in the file", layer["builtin"])]
        told = [f"  {name:<12} {_counts(counts)}" for name, counts in rows if counts]
        lines += told or ["  no ops"]
    return "\n".join(lines)


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} x {count}" if count > 1 else name for name, count in counts.items())
