"""Decides whether a runtime computes what Keras computes, and by how much it misses."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgefl.manifest import ModelManifest
from edgefl_converters.verification.experiment import Experiment
from edgefl_converters.verification.measuring import Expectation, Measured

__all__ = ["Comparison", "judge"]

_MULTIPLE = 8.0
"""So many times Keras's own float32 error is allowed: another order of summation is as good, a wrong formula is
worse by orders."""
_RELATIVE = 1e-5
"""Float32 sums over a batch are never worse than this; covers tensors where Keras happened to round luckily."""
_ABSOLUTE = 1e-7
"""The least limit, as a share of the largest value of its kind: tensors whose true gradient is zero hold rounding
errors of the others."""
_UNSURE, _HALF = 1e-2, 0.5
"""Share of a parameter's movement that rounding in Keras changes, from which a runtime may miss half of the movement:
deep networks on few rows amplify the rounding of each op, of which the disturbed runs have that of the input alone."""
_OF_MOVEMENT = 1e-3
"""The limit as a share of how far a parameter moved: the agreement that DESIGN asks of training beside Keras."""


@dataclass(frozen=True)
class Comparison:
    """One figure of one runtime beside Keras's.

    Attributes:
        kind: ``gradient``, ``partial batch``, ``training``, ``loss``, ``evaluate``, ``infer``, ``counter``, ``state``,
            ``pulled training`` (with a proximal term and a correction), ``given gradient`` (by its own signature).
        name: of the parameter, slot, output or metric.
        error: distance to the reference, relative to ``scale``.
        limit: largest allowed error, relative to ``scale``.
        keras_error: Keras's own float32 error, relative to ``scale``.
        scale: size of the reference's result.
    """

    kind: str
    name: str
    error: float
    limit: float
    keras_error: float = 0.0
    scale: float = 1.0

    @property
    def passed(self) -> bool:
        """False also where the error is not a number."""
        return bool(self.error <= self.limit)

    def __str__(self) -> str:
        return (
            f"{self.kind} of {self.name}: error {self.error:.2g}, allowed {self.limit:.2g} "
            f"(Keras in float32: {self.keras_error:.2g})"
        )


def judge(
    manifest: ModelManifest, experiment: Experiment, expectation: Expectation, actual: Measured
) -> list[Comparison]:
    """Compares everything that a runtime returned with what Keras computes."""
    comparisons = [
        *_arrays("gradient", "probe", expectation, actual),
        *_arrays("infer", "outputs", expectation, actual),
        *_movement("training", "moved", experiment, expectation, actual),
        *_figures("loss", "logs", expectation, actual),
        *_figures("evaluate", "evaluation", expectation, actual),
    ]
    if actual.partial is not None and expectation.exact.partial is not None:
        comparisons += _arrays("partial batch", "partial", expectation, actual)
    if expectation.exact.federated:
        comparisons += _movement("pulled training", "federated", experiment, expectation, actual)
    if expectation.exact.gradients:
        comparisons += _arrays("given gradient", "gradients", expectation, actual)
    for name, value in expectation.exact.counters.items():
        comparisons.append(Comparison("counter", name, float(np.max(np.abs(actual.counters[name] - value))), 0.0))
    named = {parameter.name for parameter in manifest.parameters}
    missing = named - actual.moved.keys()
    comparisons += [Comparison("training", name, float("nan"), 0.0) for name in sorted(missing)]
    return comparisons


def _arrays(kind: str, attribute: str, expectation: Expectation, actual: Measured) -> list[Comparison]:
    """Compares by the Euclidean norm: a rounding flip at a kink touches few elements, a wrong formula nearly all."""
    exact: Mapping[str, NDArray[np.float64]] = getattr(expectation.exact, attribute)
    found: Mapping[str, NDArray[np.float64]] = getattr(actual, attribute)
    largest: dict[str, float] = {}
    for name, value in exact.items():
        largest[_family(name)] = max(largest.get(_family(name), 0.0), _root_mean_square(value))
    comparisons = []
    for name, value in exact.items():
        if name not in found or found[name].shape != value.shape:
            comparisons.append(Comparison(kind, name, float("nan"), 0.0))
            continue
        scale = _norm(value)
        own = expectation.spread(attribute, name, _norm)
        floor = _ABSOLUTE * largest[_family(name)] * np.sqrt(max(value.size, 1))
        limit = _MULTIPLE * own + _RELATIVE * scale + floor
        comparisons.append(_relative(kind, name, _norm(found[name] - value), limit, own, scale))
    return comparisons


def _movement(
    kind: str, attribute: str, experiment: Experiment, expectation: Expectation, actual: Measured
) -> list[Comparison]:
    """Compares with Keras in float32, relative to how far the parameter moved there.

    Where rounding alone moves a parameter of Keras's further than training does, as in very deep networks on few rows,
    there is nothing to compare with.
    """
    found: Mapping[str, NDArray[np.float64]] = getattr(actual, attribute)
    others = [getattr(run, attribute) for run in (expectation.exact, *expectation.disturbed)]
    comparisons = []
    for name, moved in getattr(expectation.plain, attribute).items():
        if name not in found or not moved.size:
            continue
        scale = _largest(moved)
        own = max(_largest(other[name] - moved) for other in others)
        rounding = len(experiment.batches) * 2.0**-23 * _largest(experiment.initial[name].astype(np.float64) + moved)
        limit = max(_OF_MOVEMENT * scale, _MULTIPLE * own, rounding, _HALF * scale if own > _UNSURE * scale else 0.0)
        if own > scale:
            limit = math.inf
        comparisons.append(_relative(kind, name, _largest(found[name] - moved), limit, own, scale))
    return comparisons


def _figures(kind: str, attribute: str, expectation: Expectation, actual: Measured) -> list[Comparison]:
    comparisons = []
    for name, value in getattr(expectation.exact, attribute).items():
        found = getattr(actual, attribute).get(name)
        if found is not None and not np.isfinite(value):
            # A quotient of nothing, as some metrics are: no number on either side.
            comparisons.append(
                Comparison(kind, name, 0.0 if np.array_equal(found, value, equal_nan=True) else 1.0, 0.0)
            )
            continue
        found = np.float64("nan") if found is None else found
        own = expectation.spread(attribute, name, _largest)
        limit = _MULTIPLE * own + _RELATIVE * abs(float(value)) + 1e-6
        comparisons.append(_relative(kind, name, _largest(found - value), limit, own, abs(float(value))))
    return comparisons


def _relative(kind: str, name: str, error: float, limit: float, own: float, scale: float) -> Comparison:
    unit = scale or 1.0
    return Comparison(kind, name, error / unit, limit / unit, own / unit, scale)


def _family(name: str) -> str:
    """Slots of one kind (all first moments, all second moments) are of comparable size."""
    return name.rsplit("/", 1)[-1] if name.startswith("optimizer/") else ""


def _norm(array: NDArray[Any]) -> float:
    return float(np.linalg.norm(np.ravel(array)))


def _root_mean_square(array: NDArray[Any]) -> float:
    return _norm(array) / float(np.sqrt(max(array.size, 1)))


def _largest(array: NDArray[Any]) -> float:
    return float(np.max(np.abs(array), initial=0.0))
