"""The options that say which columns of a table are what."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["DATA_PANEL", "FeatureColumns", "TargetColumn", "listed"]

DATA_PANEL = "Data, and who holds what"
"""The heading of options about data."""

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
