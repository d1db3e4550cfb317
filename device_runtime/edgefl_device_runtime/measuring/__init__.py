"""Measures what installed interpreters do with a model file: memory of each signature, and what is delegated."""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgefl.child_processes import ChildFailedError, run_child
from edgefl.manifest import ModelManifest
from edgefl.targets import TARGETS
from edgefl_device_runtime.measuring import child
from edgefl_device_runtime.training.interpreter import installed_runtimes, runtime_module

__all__ = ["Delegation", "Measured", "measure"]

_SECONDS = 600.0
"""A child that takes longer hangs: the largest models tried need seconds."""


@dataclass(frozen=True)
class Delegation:
    """The part that the delegate (XNNPACK) takes of the first signature, which is ``train``.

    Attributes:
        ops: how many ops the signature has.
        taken: how many of them the delegate computes.
        partitions: in how many pieces.
    """

    ops: int
    taken: int
    partitions: int


@dataclass(frozen=True)
class Measured:
    """The findings about one runtime with a model file.

    Attributes:
        runtime: its distribution.
        version: of the distribution; empty if it was not installed as one.
        reason: why nothing was measured; empty if something was.
        loaded: bytes of the heap that hold the graphs of all signatures.
        variables: bytes of the variables, which exist once any signature has been called.
        arenas: bytes of the heap that each signature adds once it has been called, without the variables: its tensors,
            the delegate's workspace and packed operands, the kernels' scratch. None where the C library cannot tell.
        delegation: of ``train``; None if nothing was measured or the runtime does not tell.
    """

    runtime: str
    version: str
    reason: str = ""
    loaded: int | None = None
    variables: int | None = None
    arenas: Mapping[str, int] | None = None
    delegation: Delegation | None = None


def measure(path: str | os.PathLike[str], manifest: ModelManifest) -> list[Measured]:
    """Runs each signature of a model file once on each installed runtime, in a child process for each runtime.

    Every figure is a difference of what the C library has handed out, so the same file gives the same figures to a few
    hundred bytes. All interpreters allocate ``train`` when they are opened; the figures of the others come on top.

    Args:
        path: of the model file.
        manifest: what it says about itself.

    Returns:
        One result for each installed runtime, the faster one first; none if none is installed.
    """
    return [_measure(runtime, path, manifest) for runtime in installed_runtimes()]


def _measure(runtime: str, path: str | os.PathLike[str], manifest: ModelManifest) -> Measured:
    version = _version(runtime)
    target = TARGETS.get(manifest.target)
    if target is not None and not target.covers(runtime, version or None):
        return Measured(runtime, version, f"the file was made for {target}")
    job = {
        name: [[spec.tensor, spec.shape, spec.dtype] for spec in signature.inputs]
        for name, signature in manifest.signatures.items()
    }
    try:
        found = run_child(child.__file__, runtime_module(runtime), path, seconds=_SECONDS, job=job)
    except ChildFailedError as error:
        return Measured(runtime, version, _reason(error))
    return _read(runtime, version, manifest, json.loads(found))


def _read(runtime: str, version: str, manifest: ModelManifest, found: Mapping[str, Any]) -> Measured:
    delegation = None if found["delegation"] is None else Delegation(**found["delegation"])
    heap = found["heap"]
    if heap is None:
        return Measured(runtime, version, delegation=delegation)
    variables = sum(4 * parameter.size for parameter in manifest.parameters)
    variables += sum(math.prod(each.shape) * np.dtype(each.dtype).itemsize for each in manifest.state)
    arenas = {name: max(0, stages["called"] - variables) for name, stages in heap.items()}
    arenas["train"] += heap["train"]["allocated"]
    return Measured(
        runtime,
        version,
        loaded=heap["train"]["loaded"],
        variables=variables,
        arenas=arenas,
        delegation=delegation,
    )


def _version(runtime: str) -> str:
    try:
        return importlib.metadata.version(runtime)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _reason(error: ChildFailedError) -> str:
    if error.timed_out:
        return f"it did not finish in {_SECONDS:.0f} s"
    if error.killed_by:
        return f"it was killed by {error.killed_by}"
    return error.last_line or "it gave no reason"
