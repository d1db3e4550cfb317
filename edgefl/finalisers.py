"""Turns the summed states of a metric into its value: what Keras computes in ``Metric.result``, in numpy.

A state is the sum of what each batch contributed. It travels flat, so shapes are said by a metric's settings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["FINALISERS"]

Array = NDArray[Any]
Settings = Mapping[str, Any]
_EPSILON = 1e-7
"""Keras adds it to denominators."""
_NOTHING = 2.0**-90
"""A sum of weights up to here is one of weights 0: each was passed as the smallest normal float32, 2 ** -126."""


def _quotient(numerator: Any, denominator: Any) -> Array:
    """0 where the denominator is, or is a sum of weights 0."""
    numerator, denominator = np.asarray(numerator, np.float64), np.asarray(denominator, np.float64)
    quotient: Array = np.zeros_like(numerator + denominator)
    np.divide(numerator, denominator, out=quotient, where=np.abs(denominator) > _NOTHING)
    return quotient


def _sum(states: Sequence[Array], settings: Settings) -> float:
    (total,) = states
    return float(np.sum(total))


def _mean(states: Sequence[Array], settings: Settings) -> float:
    total, count = (float(np.sum(state)) for state in states)
    return float(_quotient(total, count))


def _root_mean(states: Sequence[Array], settings: Settings) -> float:
    return float(np.sqrt(_mean(states, settings)))


def _share(states: Sequence[Array], settings: Settings) -> float:
    """The first state of both: precision, recall."""
    hits, misses = (float(np.sum(state)) for state in states)
    return float(_quotient(hits, hits + misses))


def _rates(states: Sequence[Array]) -> dict[str, Array]:
    """Computes it from counts at each threshold."""
    true_positives, false_positives, true_negatives, false_negatives = states
    return {
        "precision": _quotient(true_positives, true_positives + false_positives),
        "recall": _quotient(true_positives, true_positives + false_negatives),
        "specificity": _quotient(true_negatives, true_negatives + false_positives),
        "false_positive_rate": _quotient(false_positives, false_positives + true_negatives),
    }


def _best_at(states: Sequence[Array], settings: Settings) -> float:
    """The best value of one rate at thresholds where another is at least ``minimum``; 0 where there is none."""
    rates = _rates(states)
    feasible = rates[settings["constrained"]] >= settings["minimum"]
    return float(np.max(np.where(feasible, rates[settings["rate"]], 0.0), initial=0.0))


def _area_under_curve(states: Sequence[Array], settings: Settings) -> float:
    """Area under the ROC, precision-recall or precision-recall-gain curve, the mean over labels."""
    thresholds = int(settings["thresholds"])
    counts = [_without_nothing(state).reshape(thresholds, -1) for state in states]
    if settings["curve"] == "PR" and settings["summation"] == "interpolation":
        pieces = _interpolated(*counts)
    else:
        x, y = _curve(counts, settings["curve"])
        heights = {
            "interpolation": (y[:-1] + y[1:]) / 2,
            "minoring": np.minimum(y[:-1], y[1:]),
            "majoring": np.maximum(y[:-1], y[1:]),
        }
        pieces = (x[:-1] - x[1:]) * heights[settings["summation"]]
    areas = pieces.sum(axis=0)
    weights = settings.get("label_weights")
    return float(np.average(areas, weights=weights))


def _curve(counts: Sequence[Array], curve: str) -> tuple[Array, Array]:
    rates = _rates(counts)
    if curve == "ROC":
        return rates["false_positive_rate"], rates["recall"]
    if curve == "PR":
        return rates["recall"], rates["precision"]
    # Flach and Kull, "Precision-Recall-Gain Curves", NIPS 2015.
    true_positives, false_positives, true_negatives, false_negatives = counts
    balance = _quotient(true_positives + false_negatives, true_negatives + false_positives)
    found = true_positives > 0
    recall_gain = np.where(found, 1.0 - balance * _quotient(false_negatives, true_positives), 0.0)
    precision_gain = np.where(found, 1.0 - balance * _quotient(false_positives, true_positives), 1.0)
    return np.maximum(recall_gain, 0.0), precision_gain


def _interpolated(true_positives: Array, false_positives: Array, _: Array, false_negatives: Array) -> Array:
    """Davis and Goadrich, "The Relationship Between Precision-Recall and ROC Curves", ICML 2006, section 4."""
    positives = true_positives + false_positives
    gained = true_positives[:-1] - true_positives[1:]
    slope = _quotient(gained, np.maximum(positives[:-1] - positives[1:], 0))
    intercept = true_positives[1:] - slope * positives[1:]
    both = (positives[:-1] > 0) & (positives[1:] > 0)
    ratio = np.where(both, _quotient(positives[:-1], positives[1:]), 1.0)
    return _quotient(slope * (gained + intercept * np.log(ratio)), true_positives[1:] + false_negatives[1:])


def _f_beta(states: Sequence[Array], settings: Settings) -> float:
    true_positives, false_positives, false_negatives, weights = (np.asarray(state, np.float64) for state in states)
    precision = true_positives / (true_positives + false_positives + _EPSILON)
    recall = true_positives / (true_positives + false_negatives + _EPSILON)
    square = float(settings["beta"]) ** 2
    scores = (1 + square) * precision * recall / (square * precision + recall + _EPSILON)
    if settings["average"] == "weighted":
        return float(np.sum(scores * weights) / (np.sum(weights) + _EPSILON))
    return float(np.mean(scores))


def _intersection_over_union(states: Sequence[Array], settings: Settings) -> float:
    """Mean over the chosen classes, of those that occur."""
    classes = int(settings["classes"])
    confusion = np.asarray(states[0], np.float64).reshape(classes, classes)
    both = np.diag(confusion)
    chosen = list(settings["chosen"])
    union = (confusion.sum(axis=0) + confusion.sum(axis=1) - both)[chosen]
    occurring = union > 1e-9
    return float(np.sum(both[chosen] / (union + _EPSILON) * occurring) / (np.sum(occurring) + _EPSILON))


def _r_squared(states: Sequence[Array], settings: Settings) -> float:
    """Coefficient of determination, adjusted for the number of regressors if it is given.

    In float32 and in the order of Keras's operations: of targets that are all alike nothing but rounding is left of the
    variation, and Keras's value, 0 or not a number, depends on it being exactly 0.
    """
    samples = float(np.sum(states[0]))
    squares, total, residual, count = (_without_nothing(state).astype(np.float32) for state in states[1:])
    with np.errstate(divide="ignore", invalid="ignore"):
        variation = squares - total * (total / count)
        scores = 1 - residual / variation
        scores = np.where(np.isinf(scores), np.float32(0), scores)
        if settings["aggregation"] == "variance_weighted_average":
            score = np.sum(variation * scores) / np.sum(variation)
        else:
            score = np.mean(scores)
    regressors = int(settings["regressors"])
    if regressors and samples - regressors - 1 > 0:
        score = 1.0 - (1.0 - score) * (samples - 1.0) / (samples - regressors - 1.0)
    return float(score)


def _without_nothing(state: Array) -> Array:
    """A state with exactly 0 where it is a sum of weights 0 only."""
    values = np.asarray(state, np.float64)
    return np.where(np.abs(values) <= _NOTHING, 0.0, values)


FINALISERS: dict[str, Callable[[Sequence[Array], Settings], float]] = {
    "area_under_curve": _area_under_curve,
    "best_at": _best_at,
    "f_beta": _f_beta,
    "intersection_over_union": _intersection_over_union,
    "mean": _mean,
    "r_squared": _r_squared,
    "root_mean": _root_mean,
    "share": _share,
    "sum": _sum,
}
"""The finalisers by their names in a manifest. Each takes summed states in its order, and the metric's settings;
raises ValueError or KeyError where they do not fit each other."""
