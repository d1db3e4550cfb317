"""Holds what the converter's functions return."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgefl.manifest import ModelManifest

__all__ = ["ConversionResult", "ExportResult"]


@dataclass(frozen=True, repr=False)
class ConversionResult:
    """A converted model; as text it is one sentence about it.

    Attributes:
        path: the model file.
        manifest: what the file says about itself.
        report: what was checked and how well it agreed, as plain values; also in ``<path>.report.json``.
        seconds: that each stage of the conversion took, by its name: ``tracing``. They add up to the whole.
    """

    path: Path
    manifest: ModelManifest
    report: Mapping[str, Any]
    seconds: Mapping[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        layout, rows = self.manifest.layout, self.manifest.batch_size
        ran = [each["ran_on"] for each in self.report["evidence"] if each["ran_on"]]
        agrees = f"agrees with Keras on {' and '.join(ran)}" if ran else "was not compared with Keras"
        return (
            f"{self.path} ({self.report['bytes']:,} bytes) trains {layout.weight_size:,} weights in batches of "
            f"{rows}, and {agrees}."
        )

    def __repr__(self) -> str:
        return f"<ConversionResult: {self}>"


@dataclass(frozen=True, repr=False)
class ExportResult:
    """An exported model or its weights.

    Attributes:
        path: the file that was written.
        report: its size and, for inference models, how far its outputs are from Keras's, as plain values.
    """

    path: Path
    report: Mapping[str, Any]

    def __repr__(self) -> str:
        return f"<ExportResult: {self.path} ({self.report['bytes']:,} bytes)>"
