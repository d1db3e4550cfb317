"""Holds what the converter's functions return."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgefl.manifest import ModelManifest

__all__ = ["ConversionResult", "ExportResult"]


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


@dataclass(frozen=True)
class ExportResult:
    """An exported model or its weights.

    Attributes:
        path: the file that was written.
        report: its size and, for inference models, how far its outputs are from Keras's, as plain values.
    """

    path: Path
    report: Mapping[str, Any]
