"""Whether another distribution that takes edgefl's name is installed beside ours."""

from __future__ import annotations

from importlib import metadata

__all__ = ["namesake_warning"]

_NAMESAKE = "edgefl"
"""A distribution of somebody else is called so. Ours is edgefl-toolkit; each brings a package ``edgefl``."""


def namesake_warning() -> str:
    """Says that both are installed; empty if the other one is not."""
    try:
        found = metadata.version(_NAMESAKE)
    except metadata.PackageNotFoundError:
        return ""
    return (
        f"Warning: the distribution edgefl {found} is installed beside edgefl-toolkit. It is another project, whose "
        "files may have taken the place of ours. "
        "Uninstall both (pip uninstall edgefl edgefl-toolkit), then install edgefl-toolkit again."
    )
