"""Reads what the report beside a model file says of the runtimes that ran it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from edgefl.model_file import ModelFile

__all__ = ["evidence_beside", "report_path"]

_FIELDS = ("target", "ran_on", "table_only")


def report_path(path: str | os.PathLike[str]) -> Path:
    """Returns where the report of a model file lies: beside it."""
    path = Path(path)
    return path.with_name(f"{path.name}.report.json")


def evidence_beside(path: str | os.PathLike[str], model: ModelFile) -> list[dict[str, str]] | None:
    """Says for each target whether a runtime really ran a file when it was converted.

    It stands in the report, not in the file: the same model gives the same bytes wherever it is converted.

    Args:
        path: the model file.
        model: its content.

    Returns:
        For each target its name, ``ran_on`` (the runtime and its version; empty if none ran) and ``table_only`` (why
        only the versions of its ops were compared with a table). None if no report of this very graph lies beside it.
    """
    try:
        report: Any = json.loads(report_path(path).read_text(encoding="utf-8"))
        if report["graph_hash"] != model.manifest.graph_hash:
            return None
        return [{name: str(each[name]) for name in _FIELDS} for each in report["evidence"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None
