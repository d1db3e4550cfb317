"""What has been found out, kept in a file, so that an interrupted run goes on where it was."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["Record", "version_of"]

_PACKAGES = ("keras", "tensorflow", "ai-edge-litert", "tflite-runtime")


class Record:
    """Findings by their key; only those of this very version count.

    Args:
        path: of the file; it need not be there. Several processes may write to it.
        version: of all that the findings depend on.
    """

    def __init__(self, path: Path, version: str) -> None:
        self._path, self._version = path, version
        self._found: dict[str, Any] = {}
        for line in path.read_text().splitlines() if path.exists() else []:
            entry = json.loads(line)
            if entry["version"] == version:
                self._found[entry["key"]] = entry["value"]

    def get(self, key: str) -> Any:
        """What was found; None if nothing was."""
        return self._found.get(key)

    def put(self, key: str, value: Any) -> None:
        """Writes down what was found.

        Args:
            key: what it is about.
            value: what JSON can hold.
        """
        self._found[key] = value
        with self._path.open("a") as file:
            file.write(json.dumps({"version": self._version, "key": key, "value": value}) + "\n")


def version_of(paths: Sequence[Path]) -> str:
    """A hash of some Python files, of all below some folders, and of what computes beside them."""
    digest = hashlib.sha256()
    for path in paths:
        for source in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(source.read_bytes())
    installed = {each.metadata["Name"]: each.version for each in importlib.metadata.distributions()}
    digest.update(json.dumps([installed.get(each) for each in _PACKAGES]).encode())
    return digest.hexdigest()[:16]
