"""Names the settings of pure code as the command line calls them."""

from __future__ import annotations

__all__ = ["option_of"]


def option_of(setting: str) -> str:
    """The option of a setting: ``--keep-days`` of ``keep_days``. Who uses HTTP finds the query's name in it."""
    return "--" + setting.replace("_", "-")
