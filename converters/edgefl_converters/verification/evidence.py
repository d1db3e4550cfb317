"""Says what it rests on that a file runs on its target: on a runtime that really ran it, or only on tables of ops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from edgefl.targets import TargetRuntime, included

__all__ = ["Evidence", "evidence"]


class Tried(Protocol):
    """A runtime that was to run the file; `edgefl_converters.verification.report.RuntimeReport` is one."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    @property
    def ran(self) -> bool: ...

    @property
    def reason(self) -> str: ...


@dataclass(frozen=True)
class Evidence:
    """Holds what is known of one target.

    Attributes:
        target: its name.
        ran_on: the runtime that ran the file, with its version; empty if none did.
        table_only: why not, when only the table of its ops was looked at; else empty.
    """

    target: str
    ran_on: str
    table_only: str

    def __str__(self) -> str:
        if self.ran_on:
            return f"{self.target}: ran on {self.ran_on}"
        return f"{self.target}: {self.table_only}: checked against the op table only"


def evidence(target: str, tried: Sequence[Tried] | None) -> tuple[Evidence, ...]:
    """Tells of each single target that a target includes whether it was run.

    Args:
        target: a name of `edgefl.targets`.
        tried: the runtimes that are installed, with what became of them; None if nothing was to be run.
    """
    return tuple(_evidence(each, tried) for each in included(target))


def _evidence(target: TargetRuntime, tried: Sequence[Tried] | None) -> Evidence:
    if tried is None:
        return Evidence(target.name, "", "nothing was run")
    for each in tried:
        if target.covers(each.name, each.version):
            if each.ran:
                return Evidence(target.name, f"{each.name} {each.version}", "")
            return Evidence(target.name, "", each.reason.rstrip("."))
    return Evidence(target.name, "", target.absence())
