"""Targets: the interpreters that a model file is made for, by name."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from edgefl.errors import InvalidSettingError

__all__ = ["ALL", "CHOICES", "COMPILED_MODEL", "RUNTIMES", "TARGETS", "TargetRuntime", "distribution_of", "included"]

RUNTIMES = {"ai-edge-litert": "ai_edge_litert.interpreter", "tflite-runtime": "tflite_runtime.interpreter"}
"""The distributions of the interpreters that are known, the faster one first, and the module of each that holds it."""

COMPILED_MODEL = "litert-compiled-model"
"""LiteRT's CompiledModel, the other way into ai-edge-litert: the same kernels, hence the same bits."""

CHOICES = (*RUNTIMES, COMPILED_MODEL)
"""All that a device may be told to train with; ``auto`` is the first of `RUNTIMES` that there is."""

ALL = "all"
"""The target that includes every other: such a file loads on each of them."""


@dataclass(frozen=True)
class TargetRuntime:
    """An interpreter from some version on; later ones load all that it loads.

    Attributes:
        name: of the target, as options and manifests write it.
        runtime: the interpreter's distribution.
        version: the first one that counts.
        newest_python: that it has a wheel for; None: there is no such limit.
    """

    name: str
    runtime: str
    version: tuple[int, ...]
    newest_python: tuple[int, int] | None = None

    def __str__(self) -> str:
        return f"{self.name} ({self._from_then_on})"

    @property
    def _from_then_on(self) -> str:
        return f"{self.runtime} {'.'.join(map(str, self.version))} or newer"

    def has_wheel(self, python: tuple[int, int] = sys.version_info[:2]) -> bool:
        """Whether the runtime can be installed for a Python, this one unless another is given.

        Args:
            python: its major and minor version.
        """
        return self.newest_python is None or python <= self.newest_python

    def absence(self, python: tuple[int, int] = sys.version_info[:2]) -> str:
        """Says that the runtime is not installed, and why it cannot be, if so.

        Args:
            python: as for `has_wheel`.
        """
        plain = f"{self._from_then_on} is not installed"
        if self.has_wheel(python) or self.newest_python is None:
            return plain
        return f"{plain}, and has no wheel for a Python newer than {'.'.join(map(str, self.newest_python))}"

    def covers(self, runtime: str, version: str | None) -> bool:
        """Whether an interpreter belongs to this target; one whose version is not known does.

        Args:
            runtime: one of `CHOICES`.
            version: of its distribution, such as ``2.14.0``.
        """
        if distribution_of(runtime) != self.runtime:
            return False
        return version is None or _numbers(version, len(self.version)) >= self.version


TARGETS = {
    each.name: each
    for each in (
        TargetRuntime("tflite-2.14", "tflite-runtime", (2, 14), newest_python=(3, 11)),
        TargetRuntime("litert-2", "ai-edge-litert", (2, 3)),
    )
}
"""Every single target, the oldest first."""


def distribution_of(runtime: str) -> str:
    """The distribution that one of `CHOICES` is part of.

    Args:
        runtime: its name.
    """
    return "ai-edge-litert" if runtime == COMPILED_MODEL else runtime


def included(target: str) -> tuple[TargetRuntime, ...]:
    """The single targets that a target stands for.

    Raises:
        InvalidSettingError: there is no such target.
    """
    if target == ALL:
        return tuple(TARGETS.values())
    if target not in TARGETS:
        raise InvalidSettingError(f"Unknown target {target!r}, expected {', '.join(TARGETS)} or {ALL}.")
    return (TARGETS[target],)


def _numbers(version: str, count: int) -> tuple[int, ...]:
    """The first numbers of a version; what is no number counts as 0."""
    parts = [int(part) if part.isdigit() else 0 for part in version.split(".")[:count]]
    return (*parts, *[0] * (count - len(parts)))
