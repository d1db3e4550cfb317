"""Draws who holds what: rows of each device, and below the share of each class in them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from edgefl.atomic import write_bytes
from edgefl.errors import InvalidSettingError, MissingDependencyError
from edgefl.parts import install_line
from edgefl_simulation.holdings.counting import Holdings

__all__ = ["FORMATS", "draw", "write_picture"]

FORMATS = ("png", "pdf", "svg")
_NAMED = 40
"""Devices, or classes, up to which each is named."""


def write_picture(holdings: Holdings, title: str, path: Path) -> None:
    """Draws and writes a picture; its ending says the format.

    Args:
        holdings: who holds what.
        title: above it.
        path: of the file.

    Raises:
        InvalidSettingError: the ending is no format.
        MissingDependencyError: matplotlib is not installed.
        StorageError: it cannot be written.
    """
    kind = path.suffix.lower().lstrip(".")
    if kind not in FORMATS:
        raise InvalidSettingError(
            f"A picture's name expects the ending {', '.join('.' + each for each in FORMATS)}, got {path.name!r:.80}."
        )
    buffer = io.BytesIO()
    figure = draw(holdings, title)
    figure.savefig(buffer, format=kind, metadata={"Date": None} if kind == "svg" else None)
    write_bytes(path, buffer.getvalue())


def draw(holdings: Holdings, title: str) -> Any:
    """A `matplotlib.figure.Figure`, which belongs to no window.

    Args:
        holdings: who holds what.
        title: above it.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            "A picture needs matplotlib, which is not installed.", hint=f"Install it with: {install_line('simulate')}"
        ) from error
    devices, classes = len(holdings.names), len(holdings.classes)
    named = devices <= _NAMED
    size = (min(14, max(6.4, 1.8 + 0.24 * devices)), 4.0 + min(4.0, max(0.9, 0.22 * classes)) if classes else 3.4)
    figure = Figure(figsize=size, dpi=120, layout="constrained")
    grid = figure.subplots(
        2 if classes else 1,
        1,
        sharex=True,
        squeeze=False,
        height_ratios=(2, max(1.2, size[1] - 3)) if classes else None,
    )[:, 0]
    figure.suptitle(title, fontsize=11)
    places = np.arange(devices)
    sizes = grid[0]
    sizes.bar(places, holdings.sizes, width=0.8 if named else 1.0, color="#31688e", linewidth=0)
    sizes.set_ylabel("rows")
    sizes.set_xlim(-0.5, devices - 0.5)
    sizes.margins(y=0.08)
    sizes.spines[["top", "right"]].set_visible(False)
    sizes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    if classes:
        shares = grid[1].imshow(
            holdings.shares.T, aspect="auto", interpolation="nearest", cmap="Blues", vmin=0, vmax=holdings.shares.max()
        )
        step = max(1, -(-classes // _NAMED))
        grid[1].set_yticks(range(0, classes, step), list(holdings.classes)[::step], fontsize=8)
        grid[1].set_ylabel("tenths of the target" if holdings.binned else "class")
        figure.colorbar(shares, ax=grid[1], label="share of the device's rows", pad=0.01, format="{x:.0%}")
        far = holdings.figures()["total_variation"]
        grid[1].set_title(f"total variation distance to all: {far['mean']:.2f} on average", fontsize=9)
    bottom = grid[-1]
    if named:
        long = max(map(len, holdings.names)) > 3
        names = [name.removeprefix("device-").lstrip("0") or "0" for name in holdings.names]
        plain = all(name.startswith("device-") for name in holdings.names)
        shown = names if plain else [name if len(name) <= 24 else name[:23] + "…" for name in holdings.names]
        bottom.set_xticks(places, shown, rotation=90 if long and not plain else 0, fontsize=8)
    bottom.set_xlabel("device" if named else f"device (of {devices:,})")
    return figure
