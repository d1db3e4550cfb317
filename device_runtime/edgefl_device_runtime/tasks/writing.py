"""Writes what a device has learnt into sections of its outcome, bounded as the task says."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from edgefl.codecs import codec
from edgefl.wire.messages import Section, Task
from edgefl_device_runtime.tasks.clipping import clipped

__all__ = ["bounded", "update"]

Vector = NDArray[np.float32]


def update(task: Task, delta: Vector, residual: Vector | None) -> tuple[Section, Vector | None]:
    """Writes the section ``delta``.

    With a codec that has a memory, this is error feedback (Seide et al. 2014, "1-Bit Stochastic Gradient Descent";
    Sattler et al. 2019, Algorithm 3): what the run's codec has left out before is added first, and what it leaves out
    now is kept.

    Args:
        task: says in which codec.
        delta: trained minus received, float32 ``[weight_size]``, finite.
        residual: what was left out before; None: nothing.

    Returns:
        The section, and what is left out now; None with a codec that has no memory.

    Raises:
        CodecError: the codec fails.
    """
    if not codec(task.codec_of("delta")).memory:
        return bounded(task, "delta", delta), None
    if residual is not None and residual.shape == delta.shape:
        delta = delta + residual
    section = task.section("delta", delta)
    return section, delta - section.vector()


def bounded(task: Task, name: str, vector: Vector) -> Section:
    """Writes a section so that its L2 norm is at most the task's bound, before its codec and after.

    Most codecs make a vector longer: what they are off by is added to it. Where that brings it above the bound, all of
    it is made so much shorter.

    Args:
        task: says in which codec.
        name: the section's.
        vector: float32 ``[n]``, finite.

    Raises:
        CodecError: the codec fails.
    """
    vector = clipped(vector, task.clip_norm)
    section = task.section(name, vector)
    if task.clip_norm <= 0 or codec(section.codec).exact:
        return section
    norm = math.sqrt(float(np.sum(np.square(section.vector(), dtype=np.float64))))
    if not norm > task.clip_norm:
        return section
    return task.section(name, vector * np.float32(task.clip_norm / norm))
