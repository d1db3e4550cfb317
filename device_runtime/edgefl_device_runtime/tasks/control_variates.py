"""The devices' side of SCAFFOLD and FedDyn, on flat vectors of the shared weights: pure functions.

SCAFFOLD: Karimireddy et al. 2020, "SCAFFOLD: Stochastic Controlled Averaging for Federated Learning", Algorithm 1 with
option II. FedDyn: Acar et al. 2021, "Federated Learning Based on Dynamic Regularization", Algorithm 1. FedProx (Li et
al. 2020) needs nothing here: its term ``mu (w - reference)`` is in the model file. Vectors
have the shape ``[layout.weight_size]``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["feddyn_correction", "feddyn_memory", "scaffold_change", "scaffold_correction"]

Vector = NDArray[np.float32]


def scaffold_correction(control: Vector, own: Vector) -> Vector:
    """Computes what is added to the gradient in every local step: ``c - c_i`` (line 10).

    Args:
        control: the server's ``c``.
        own: the device's ``c_i``; zeros before its first task.
    """
    return control - own


def scaffold_change(control: Vector, delta: Vector, steps: int, learning_rate: float) -> Vector:
    """Computes how ``c_i`` changes with a task: ``c_i⁺ - c_i = -c + (x - y_i) / (K · lr)`` (line 12, option II).

    Args:
        control: the server's ``c`` that the task named.
        delta: trained minus received, ``y_i - x``.
        steps: K, the local steps that were really taken.
        learning_rate: of each of them; plain SGD is presumed.
    """
    wide = -control.astype(np.float64) - delta.astype(np.float64) / (steps * learning_rate)
    return wide.astype(np.float32)


def feddyn_correction(own: Vector) -> Vector:
    """Computes what is added to the gradient in every local step beside ``alpha (w - reference)``: ``-h_i``.

    Args:
        own: the device's ``h_i``, the gradient of its loss where it ended last; zeros before its first task.
    """
    return -own


def feddyn_memory(own: Vector, delta: Vector, alpha: float) -> Vector:
    """Computes the device's new ``h_i``: ``h_i - alpha (w_i - reference)``.

    Args:
        own: ``h_i`` before the task.
        delta: trained minus received, ``w_i - reference``.
        alpha: the task's ``mu``.
    """
    return (own.astype(np.float64) - alpha * delta.astype(np.float64)).astype(np.float32)
