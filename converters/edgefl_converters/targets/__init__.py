"""Knows what each target can run: one table of op versions a runtime, each with its source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgefl.targets import TargetRuntime, included
from edgefl_converters.targets import litert_2, tflite_2_14

__all__ = ["OpTable", "op_tables"]


@dataclass(frozen=True)
class OpTable:
    """The ops of one target.

    Attributes:
        target: whose they are.
        versions: builtin op to the newest version that the runtime knows; an op that is not here does not exist there.
        source: where the numbers come from.
    """

    target: TargetRuntime
    versions: Mapping[str, int]
    source: str

    def refuses(self, op: str, version: int) -> str | None:
        """Says why an op cannot run on this target; None if it can."""
        if op not in self.versions:
            return f"{self.target.name} has no op {op}"
        if version > self.versions[op]:
            return f"{self.target.name} knows {op} up to version {self.versions[op]}, not {version}"
        return None


_MODULES = {"tflite-2.14": tflite_2_14, "litert-2": litert_2}


def op_tables(target: str) -> tuple[OpTable, ...]:
    """The tables that a file for a target has to fit.

    Args:
        target: a name of `edgefl.targets`, also ``all``.

    Raises:
        InvalidSettingError: there is no such target.
    """
    return tuple(OpTable(each, _MODULES[each.name].VERSIONS, _MODULES[each.name].SOURCE) for each in included(target))
