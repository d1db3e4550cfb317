"""The state folder of a server on this machine, where nobody says another one."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["SHOWN", "VARIABLE", "state_folder"]

VARIABLE = "EDGEFL_SERVER_STATE"
SHOWN = f"{VARIABLE}, else ~/.local/state/edgefl/server"
"""The default as help texts say it."""


def state_folder(given: Path | None = None) -> Path:
    """The folder that was given, else that of EDGEFL_SERVER_STATE, else one in the user's home (XDG_STATE_HOME)."""
    if given is not None:
        return given
    if named := os.environ.get(VARIABLE):
        return Path(named)
    base = os.environ.get("XDG_STATE_HOME", "")
    home = Path(base) if Path(base).is_absolute() else Path("~/.local/state").expanduser()
    return home / "edgefl" / "server"
