"""What a build has to find out: where the repository is, and so the project's addresses and the links of the README.

The address is that of EDGEFL_REPOSITORY, else of the git remote ``origin`` where that is a public one. Where there is
none nothing is made up: no addresses are written down, and a link into the repository becomes the name of its file,
which is in the source distribution.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

__all__ = ["Metadata", "described", "public_address", "urls"]

_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\((?!https?://|#)([^)\s]+)\)")
_REMOTE = re.compile(r"(?:https://(?:[^@/\s]+@)?|ssh://git@|git@)([\w.-]+\.\w+)(?::\d+)?[/:]([\w./~-]+?)(?:\.git)?/?")


def public_address(remote: str) -> str:
    """The address for browsers of a git remote: ``https://host/owner/name``; empty where it has none."""
    found = _REMOTE.fullmatch(remote.strip())
    return f"https://{found[1]}/{found[2]}" if found else ""


def urls(repository: str) -> dict[str, str]:
    """The project's addresses."""
    if not repository:
        return {}
    return {
        "Homepage": repository,
        "Documentation": f"{repository}/tree/main/docs",
        "Changelog": f"{repository}/blob/main/CHANGELOG.md",
        "Source": repository,
        "Issues": f"{repository}/issues",
    }


def described(text: str, repository: str) -> str:
    """A text for readers who are elsewhere: links into the repository are whole addresses, or the names of files."""

    def link(found: re.Match[str]) -> str:
        words, target = found.groups()
        if repository:
            return f"[{words}]({repository}/blob/main/{target})"
        file = target.partition("#")[0]
        return words if file in words else f"{words} ({file})"

    return _LINK.sub(link, text)


def _remote(root: Path) -> str:
    try:
        command = ["git", "-C", str(root), "remote", "get-url", "origin"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return ""


class Metadata(MetadataHookInterface):
    """Fills in the fields that ``pyproject.toml`` calls dynamic."""

    def update(self, metadata: dict[str, Any]) -> None:
        """See hatch."""
        root = Path(self.root)
        repository = os.environ.get("EDGEFL_REPOSITORY", "").rstrip("/") or public_address(_remote(root))
        if found := urls(repository):
            metadata["urls"] = found
        text = described((root / "README.md").read_text(encoding="utf-8"), repository)
        metadata["readme"] = {"content-type": "text/markdown", "text": text}
