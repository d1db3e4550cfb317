"""The parameters of a model file as a table for people."""

from __future__ import annotations

import math

from edgefl.manifest import ModelManifest

__all__ = ["summary_of"]


def summary_of(manifest: ModelManifest) -> str:
    """One line for each parameter, then how many numbers there are of which kind."""
    rows = [("Parameter", "Shape", "Numbers", "")]
    counts = {"trained": 0, "statistic": 0, "kept on the device": 0}
    for parameter in manifest.parameters:
        size = math.prod(parameter.shape)
        role = "trained" if parameter.role == "weight" else "statistic"
        counts[role] += size
        counts["kept on the device"] += 0 if parameter.shared else size
        rows.append(
            (parameter.name, str(parameter.shape), f"{size:,}", role if parameter.shared else f"{role}, kept here")
        )
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [
        f"{name:<{widths[0]}}  {shape:<{widths[1]}}  {size:>{widths[2]}}  {role}".rstrip()
        for name, shape, size, role in rows
    ]
    rule = "─" * max(map(len, lines))
    total = counts["trained"] + counts["statistic"]
    lines = [lines[0], rule, *lines[1:], rule]
    lines.append(f"Total params: {total:,} ({_in_bytes(4 * total)}), batch of {manifest.batch_size}")
    lines.append(f"Trainable params: {counts['trained']:,}")
    lines.append(f"Non-trainable params: {counts['statistic']:,}")
    if counts["kept on the device"]:
        lines.append(f"Never leave the device: {counts['kept on the device']:,}")
    if manifest.frozen:
        lines.append(f"Frozen variables, constants of the graph and not counted: {len(manifest.frozen)}")
    return "\n".join(lines)


def _in_bytes(size: int) -> str:
    for unit in ("B", "KB"):
        if size < 1024:
            return f"{size:.4g} {unit}"
        size = size / 1024  # type: ignore[assignment]
    return f"{size:.2f} MB"
