"""Names the settings of pure code as the command line calls them."""

from __future__ import annotations

import re

__all__ = ["converting_options", "option_of"]

_CONVERTING = re.compile(r"`(algorithms|batch_size|local)(?:='?(\w+)'?)?`")
_ONE_BY_ONE = {"algorithms": "algorithm"}
"""Settings that are lists in Python; their options are given once for each item."""


def option_of(setting: str) -> str:
    """The option of a setting: ``--keep-days`` of ``keep_days``. Who uses HTTP finds the query's name in it."""
    return "--" + setting.replace("_", "-")


def converting_options(text: str) -> str:
    """A text in which settings of a conversion are options: ``--batch-size 8`` where it says `` `batch_size=8` ``."""

    def option(found: re.Match[str]) -> str:
        name, value = found.groups()
        return " ".join(filter(None, (option_of(_ONE_BY_ONE.get(name, name)), value)))

    return _CONVERTING.sub(option, text)
