"""Pictures of curves: plain values that say what is in them, and matplotlib that draws them.

The colours are those of Okabe and Ito (2008, "Color Universal Design"), which colour-blind people tell apart, as far as
they stand out from white; curves differ in dashes and marks as well.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edgefl.parts import Part, needing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "BACKGROUND",
    "GRID",
    "INK",
    "SERIES",
    "Band",
    "Line",
    "Picture",
    "draw",
    "is_own_png",
    "one_line",
    "png",
    "svg",
]

SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#000000", "#2d1fc0")
INK, GRID, BACKGROUND = "#1d2126", "#d8dce1", "#ffffff"
_DASHES = ("solid", "dashed", "dashdot", "dotted")
_MARKS = "os^Dvp"
_SOFTWARE = "edgefl"
"""The maker that a picture names."""
_WIDTH, _HEIGHT, _LEGEND_LINE = 4.9, 2.9, 0.2
"""Inches: on a telephone a picture is as wide as the screen, and letters keep their size."""
_MARKED = 15
"""About how many points of a line have a mark."""
_MANY = 1000
"""Points beyond which a line is thin: it would be an area otherwise."""
_STYLE: Any = {
    "figure.facecolor": BACKGROUND,
    "axes.facecolor": BACKGROUND,
    "savefig.facecolor": BACKGROUND,
    "font.family": ["DejaVu Sans"],
    "font.size": 10.5,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.limits": (-4, 5),
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "lines.linewidth": 1.8,
    "lines.markersize": 3.5,
    "legend.frameon": False,
    "legend.fontsize": 10,
    # Letters stay letters, and the same picture gives the same bytes.
    "svg.fonttype": "none",
    "svg.hashsalt": "edgefl",
}


@dataclass(frozen=True)
class Line:
    """A curve in a picture.

    Attributes:
        label: as the legend calls it.
        x: along the axis.
        y: as many values.
        colour: its place among `SERIES`, from which they begin again.
        dashes: its place among the ways in which a line can be broken.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    colour: int = 0
    dashes: int = 0


@dataclass(frozen=True)
class Band:
    """An area between two curves.

    Attributes:
        label: as the legend calls it.
        x: along the axis.
        low: as many values.
        high: as many values.
        colour: its place among `SERIES`.
    """

    label: str
    x: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    colour: int = 0


@dataclass(frozen=True)
class Picture:
    """A picture of curves.

    Attributes:
        name: for files.
        title: above it.
        across: below the horizontal axis.
        up: beside the vertical axis.
        lines: the curves.
        bands: areas behind them.
        limits: of the vertical axis; None: as the curves need.
        span: of the horizontal axis; None: as the curves need.
        legend: whether there is one.
        logarithmic: whether the vertical axis is; then all values are above 0.
        across_logarithmic: whether the horizontal axis is; likewise.
    """

    name: str
    title: str
    across: str
    up: str
    lines: tuple[Line, ...]
    bands: tuple[Band, ...] = field(default=())
    limits: tuple[float, float] | None = None
    span: tuple[float, float] | None = None
    legend: bool = True
    logarithmic: bool = False
    across_logarithmic: bool = False

    def told(self) -> str:
        """The picture in words, for those who do not see it."""
        curves = [f"{line.label or 'the run'}: {_course(line)}" for line in self.lines if line.x]
        return f"{self.title}, {self.across} on the horizontal axis. " + "; ".join(curves) + "."


def one_line(text: str, longest: int = 40) -> str:
    """Somebody else's words as a label: one line, nothing in it controls anything, long ones lack their middle."""
    plain = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return plain if len(plain) <= longest else f"{plain[: longest // 2]}…{plain[-(longest - longest // 2 - 1) :]}"


def draw(picture: Picture, axes: Axes) -> None:
    """Draws curves, bands and labels into axes of matplotlib, but for the legend.

    Args:
        picture: what is drawn.
        axes: to draw into; what is there stays.
    """
    for band in picture.bands:
        colour = SERIES[band.colour % len(SERIES)]
        axes.fill_between(band.x, band.low, band.high, color=colour, alpha=0.25, linewidth=0)
    for line in picture.lines:
        place = line.colour % len(SERIES)
        turn = line.dashes + line.colour // len(SERIES)
        axes.plot(
            line.x,
            line.y,
            color=SERIES[place],
            linestyle=_DASHES[turn % len(_DASHES)],
            marker=_MARKS[place],
            markevery=max(1, len(line.x) // _MARKED),
            linewidth=0.6 if len(line.x) > _MANY else None,
        )
    for text, put in (
        (picture.title, axes.set_title),
        (picture.across, axes.set_xlabel),
        (picture.up, axes.set_ylabel),
    ):
        put(text).set_parse_math(False)
    axes.margins(x=0.02)
    if picture.across == "round":
        from matplotlib.ticker import MaxNLocator

        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))
    if picture.logarithmic:
        axes.set_yscale("log")
    if picture.across_logarithmic:
        axes.set_xscale("log")
    if picture.limits is not None:
        axes.set_ylim(*picture.limits)
    if picture.span is not None:
        axes.set_xlim(*picture.span)


def svg(picture: Picture) -> bytes:
    """The picture as SVG, with letters as text; the same picture gives the same bytes.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    return _saved(picture, format="svg", metadata={"Date": None, "Creator": None})


def png(picture: Picture) -> bytes:
    """The picture as PNG, 150 points an inch, on white.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    said = {"Software": _SOFTWARE, "Title": picture.title, "Description": picture.told()}
    return _saved(picture, format="png", dpi=150, metadata=said)


def is_own_png(head: bytes) -> bool:
    """Whether a file is a picture that `png` has made.

    Args:
        head: the first kilobyte of the file.
    """
    return head.startswith(b"\x89PNG") and b"tEXtSoftware\0" + _SOFTWARE.encode() in head


def _saved(picture: Picture, **how: Any) -> bytes:
    with needing(Part("edgefl_simulation", "simulate")):
        import matplotlib
        from matplotlib.figure import Figure
    buffer = io.BytesIO()
    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        # A name in letters that the font lacks is drawn with boxes in a PNG, which is no news to anybody.
        warnings.filterwarnings("ignore", message=".*missing from (current )?font.*")
        names = [*(line.label for line in picture.lines), *(band.label for band in picture.bands)]
        columns = _columns(names)
        shown = picture.legend and any(names)
        height = _HEIGHT + (_LEGEND_LINE * -(-len(names) // columns) if shown else 0)
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        axes = figure.subplots()
        draw(picture, axes)
        if shown:
            _add_legend(figure, axes, names, columns)
        figure.savefig(buffer, **how)
    return buffer.getvalue()


def _columns(names: Sequence[str]) -> int:
    """As many names beside each other as there is room for."""
    longest = max(map(len, names), default=0)
    return max(1, min(4, 58 // (longest + 6), len(names)))


def _add_legend(figure: Figure, axes: Axes, names: Sequence[str], columns: int) -> None:
    handles = [*axes.lines, *axes.collections]
    # Numbers first, names afterwards: matplotlib leaves out a name that begins with an underline.
    legend = figure.legend(
        handles, [str(number) for number in range(len(names))], loc="outside lower left", ncols=columns
    )
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set_text(name)
        text.set_parse_math(False)


def _course(line: Line) -> str:
    first, last = line.y[0], line.y[-1]
    if len(line.y) == 1:
        return f"{first:.4g} at {line.x[0]:.4g}"
    extremes = f"lowest {min(line.y):.4g}, highest {max(line.y):.4g}"
    return f"from {first:.4g} at {line.x[0]:.4g} to {last:.4g} at {line.x[-1]:.4g}, {extremes}"
