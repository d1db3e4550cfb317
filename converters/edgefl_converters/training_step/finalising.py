"""Says how the value of each Keras metric is computed from its states, where states add up over batches and devices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import keras
from keras import metrics

__all__ = ["Finalisation", "finalisations_of"]

_AT = {
    metrics.PrecisionAtRecall: ("recall", "precision"),
    metrics.RecallAtPrecision: ("precision", "recall"),
    metrics.SensitivityAtSpecificity: ("specificity", "recall"),
    metrics.SpecificityAtSensitivity: ("recall", "specificity"),
}
"""The rate that is constrained, and the one of which the best value is looked for."""
_COUNTS = (metrics.TruePositives, metrics.TrueNegatives, metrics.FalsePositives, metrics.FalseNegatives)


@dataclass(frozen=True)
class Finalisation:
    """Holds what a manifest says about a metric.

    Attributes:
        finaliser: a name in `edgefl.finalisers`.
        settings: what it needs to know.
        states: variables of the metric in the order in which the finaliser takes them; none for all of them.
        part: of a metric whose value is a vector, the entry that this is: the states are those entries of the
            variables that are vectors themselves.
    """

    finaliser: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    states: Sequence[Any] = ()
    part: int | None = None

    def name(self, metric: str) -> str:
        """The name of the value: that of the metric, with the place of an entry of a vector, as in ``precision[1]``."""
        return metric if self.part is None else f"{metric}[{self.part}]"

    def state(self, value: Any) -> Any:
        """The share that there is of a variable's value in this part."""
        return value if self.part is None or not value.shape.rank else value[self.part]


def finalisations_of(metric: Any) -> tuple[Finalisation, ...]:
    """Tells how a metric is finalised; empty if its values do not follow from sums over batches.

    A metric at several thresholds, or of each class, has a vector as its value: an entry of it follows from those
    entries of the states that stand at its place.

    Args:
        metric: a Keras metric that has its variables.
    """
    found = _finalisation(metric)
    if found is None:
        return ()
    several = _several(metric)
    return (found,) if several is None else tuple(replace(found, part=part) for part in range(several))


def _several(metric: Any) -> int | None:
    """The number of entries that the value of a metric has; None for a number."""
    result = type(metric).result
    if isinstance(metric, (*_COUNTS, metrics.Precision, metrics.Recall)):
        return len(metric.thresholds) if len(metric.thresholds) > 1 else None
    if result is metrics.FBetaScore.result and metric.average is None:
        return int(metric.true_positives.shape[0])
    if result is metrics.R2Score.result and metric.class_aggregation is None:
        return int(metric.squared_sum.shape[0])
    return None


def _finalisation(metric: Any) -> Finalisation | None:
    """Decides by whose ``result`` it is, so that subclasses which only update differently are included."""
    result = type(metric).result
    simple = {metrics.Mean.result: "mean", metrics.RootMeanSquaredError.result: "root_mean", metrics.Sum.result: "sum"}
    if result in simple:
        return Finalisation(simple[result])
    for kind in _COUNTS:
        if result is kind.result and isinstance(metric, kind):
            return Finalisation("sum")
    if result is metrics.Precision.result:
        return _share(metric, metric.false_positives)
    if result is metrics.Recall.result:
        return _share(metric, metric.false_negatives)
    for kind, (constrained, rate) in _AT.items():
        if result is kind.result:
            return Finalisation(
                "best_at", {"constrained": constrained, "rate": rate, "minimum": metric.value}, _confusion(metric)
            )
    if result is metrics.AUC.result:
        return _area(metric)
    if result is metrics.FBetaScore.result:
        states = (metric.true_positives, metric.false_positives, metric.false_negatives, metric.intermediate_weights)
        return Finalisation("f_beta", {"average": metric.average or "macro", "beta": float(metric.beta)}, states)
    if isinstance(metric, metrics.IoU) and result in (metrics.IoU.result, metrics.MeanIoU.result):
        chosen = [int(each) for each in metric.target_class_ids]
        return Finalisation("intersection_over_union", {"classes": int(metric.num_classes), "chosen": chosen})
    if result is metrics.R2Score.result:
        sums = (metric.num_samples, metric.squared_sum, metric.sum, metric.total_mse, metric.count)
        aggregation = metric.class_aggregation or "uniform_average"
        settings = {"aggregation": aggregation, "regressors": int(metric.num_regressors)}
        return Finalisation("r_squared", settings, sums)
    return None


def _share(metric: Any, other: Any) -> Finalisation:
    return Finalisation("share", {}, (metric.true_positives, other))


def _confusion(metric: Any) -> tuple[Any, ...]:
    return (metric.true_positives, metric.false_positives, metric.true_negatives, metric.false_negatives)


def _area(metric: Any) -> Finalisation:
    settings: dict[str, Any] = {
        "curve": metric.curve.value,
        "summation": metric.summation_method.value,
        "thresholds": int(metric.num_thresholds),
    }
    if metric.multi_label and metric.label_weights is not None:
        settings["label_weights"] = [float(each) for each in keras.ops.convert_to_numpy(metric.label_weights)]
    return Finalisation("area_under_curve", settings, _confusion(metric))
