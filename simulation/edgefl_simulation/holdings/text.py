"""Tells who holds what in 80 columns: a line for a device with a bar for each class, and what the figures mean."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgefl_simulation.holdings.counting import Holdings

__all__ = ["as_text"]

WIDTH = 80
_ROWS = 20
"""Devices that are shown: the first, the last, and evenly between."""
_BARS = " ▁▂▃▄▅▆▇█"
_NAME, _NUMBERS = 20, 29
"""Columns of a device's id, and of the numbers behind it."""


def as_text(holdings: Holdings) -> str:
    """The table and the figures.

    Args:
        holdings: at least one device.
    """
    return "\n".join([*_table(holdings), "", *_figures(holdings)])


def _table(holdings: Holdings) -> list[str]:
    count = len(holdings.names)
    shown = sorted({round(place * (count - 1) / (_ROWS - 1)) for place in range(_ROWS)})
    width = min(_NAME, max(6, *(len(name) for name in holdings.names)))
    room = WIDTH - width - _NUMBERS
    kinds = len(holdings.classes)
    title = f"{'device':{width}} {'rows':>10}"
    if not kinds:
        return [title, *(f"{_cut(holdings.names[each], width)} {holdings.sizes[each]:10,}" for each in shown)]
    grouped = -(-kinds // room)
    # Narrow bars get a space between them where there is room for it.
    apart = " " if kinds * 2 <= room and grouped == 1 else ""
    grouped_shares = [_in_groups(shares, grouped) for shares in [*holdings.shares[shown], holdings.whole]]
    largest = max(max(shares) for shares in grouped_shares)
    said = f"share of {grouped if grouped > 1 else 'each'} class{'es' if grouped > 1 else ''} (█: {largest:.0%})"
    lines = [f"{title} {'classes':>7} {'distance':>8} {said}"[:WIDTH]]
    distances, held = holdings.distances(), (holdings.counts > 0).sum(axis=1)
    for each, shares in zip([*shown, -1], grouped_shares):
        bars = apart.join(_bar(share / largest) for share in shares)
        name, size, kind, distance = (
            ("all", int(holdings.sizes.sum()), kinds, "")
            if each < 0
            else (holdings.names[each], holdings.sizes[each], held[each], f"{distances[each]:.2f}")
        )
        lines.append(f"{_cut(name, width)} {size:10,} {kind:7} {distance:>8} {bars}".rstrip())
    if apart and all(len(name) == 1 for name in holdings.classes):
        lines.append(f"{'':{width + _NUMBERS}}{apart.join(holdings.classes)}")
    if len(shown) < count:
        lines.append(f"({len(shown)} of {count:,} devices are shown)")
    return lines


def _figures(holdings: Holdings) -> list[str]:
    found = holdings.figures()
    lines = [
        f"rows a device   {found['rows_smallest']:,} to {found['rows_largest']:,}, median {found['rows_median']:,.0f}; "
        f"variation {found['size_variation']:.2f}, Gini {found['size_gini']:.2f}",
    ]
    if holdings.classes:
        kinds, near, far = found["classes_per_device"], found["total_variation"], found["jensen_shannon"]
        lines += [
            f"classes         {kinds['mean']:.1f} of {found['classes']} a device, at least "
            f"{kinds['smallest']}; effectively {found['effective_classes']:.1f}",
            f"distance to all total variation {near['mean']:.2f} on average, at most {near['largest']:.2f}",
            f"                Jensen–Shannon  {far['mean']:.2f} on average, at most {far['largest']:.2f}",
        ]
    if holdings.binned:
        lines.append("                (the target is a quantity: its tenths are the classes)")
    return lines


def _in_groups(shares: NDArray[np.float64], size: int) -> list[float]:
    return [float(shares[start : start + size].sum()) for start in range(0, len(shares), size)]


def _bar(share: float) -> str:
    """A letter as high as a share, and at least visible for what is there at all."""
    return _BARS[0] if share <= 0 else _BARS[max(1, min(8, round(share * 8)))]


def _cut(name: str, width: int) -> str:
    return f"{name:{width}}" if len(name) <= width else name[: width - 1] + "…"
