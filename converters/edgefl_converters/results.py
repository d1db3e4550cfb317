"""What the converter's functions return."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgefl.manifest import ModelManifest

__all__ = ["ConversionResult"]


@dataclass(frozen=True)
class ConversionResult:
    """A converted model.

    Attributes:
        path: the model file.
        manifest: what the file says about itself.
        report: what was checked and how well it agreed, as plain values; also in ``<path>.report.json``.
    """

    path: Path
    manifest: ModelManifest
    report: Mapping[str, Any]
