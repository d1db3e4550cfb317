"""The options that say which columns of a table are what, and how rows are shared out."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["DATA_PANEL", "SHARE", "Devices", "FeatureColumns", "HeldOut", "TargetColumn", "listed"]

DATA_PANEL = "Data, and who holds what"
"""The heading of options about data."""

SHARE = "SHARE"
"""Stands for a number from 0 up to but not including 1, which a range of the command line cannot say."""

Devices = Annotated[
    int | None,
    typer.Option(
        help="How many there are.", min=1, show_default="as many as the partition says", rich_help_panel=DATA_PANEL
    ),
]
HeldOut = Annotated[
    float,
    typer.Option(
        metavar=SHARE, help="Share of rows for tests, below 1, where the data set has none.", rich_help_panel=DATA_PANEL
    ),
]
FeatureColumns = Annotated[
    str,
    typer.Option(
        metavar="NAME,NAME",
        help="The columns or arrays of the model's input.",
        show_default="all but the target",
        rich_help_panel=DATA_PANEL,
    ),
]
TargetColumn = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="The column or array of the target.",
        show_default="y, label or the last one",
        rich_help_panel=DATA_PANEL,
    ),
]


def listed(text: str) -> tuple[str, ...]:
    """The names in a text that are separated by commas."""
    return tuple(name.strip() for name in text.split(",") if name.strip())
