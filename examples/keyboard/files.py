"""Files and folders of the example."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

__all__ = ["cache", "files"]


def cache() -> Path:
    """The folder in which bases are kept from one run to the next; it is made."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    folder = Path(base) / "edgefl" / "keyboard"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def files(out: Path) -> Mapping[str, Path]:
    """The model files by name."""
    return {kind: out / f"{kind}.tflite" for kind in ("adapters", "personal", "whole")}
