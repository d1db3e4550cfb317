"""Metrics: states that add up over batches and devices, and the value that is computed from their sums."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import layers, metrics

from keras_coverage.models import training
from keras_coverage.rows import base, covers

Output = Callable[[], Any]


def binary() -> Any:
    """One probability."""
    return layers.Dense(1, "sigmoid")


def labels() -> Any:
    """Several probabilities that do not exclude each other."""
    return layers.Dense(3, "sigmoid")


def classes() -> Any:
    """Classes that exclude each other."""
    return layers.Dense(4, "softmax")


def numbers() -> Any:
    """Numbers."""
    return layers.Dense(3)


def row(api: Any, output: Output, loss: str, *variants: dict[str, Any]) -> None:
    """A row for a metric with each of the settings, compiled twice: without and with sample weights."""

    def make(settings: dict[str, Any]) -> keras.Model:
        plain, weighted = api(**settings), api(name="own_weighted", **settings)
        return training(output(), loss, metrics=[plain], weighted_metrics=[weighted])

    covers(
        api,
        {
            ", ".join(f"{key}={value}" for key, value in settings.items()) or "as it is": (
                lambda settings=settings: make(settings)
            )
            for settings in variants
        },
        gradient=False,
        batch_size=8,
    )


BINARY, ONE_HOT, SPARSE, NUMBER = (
    "binary_crossentropy",
    "categorical_crossentropy",
    "sparse_categorical_crossentropy",
    "mse",
)
row(metrics.Accuracy, numbers, NUMBER, {})
row(metrics.BinaryAccuracy, binary, BINARY, {}, {"threshold": 0.3})
row(metrics.CategoricalAccuracy, classes, ONE_HOT, {})
row(metrics.SparseCategoricalAccuracy, classes, SPARSE, {})
row(metrics.TopKCategoricalAccuracy, classes, ONE_HOT, {"k": 2})
row(metrics.SparseTopKCategoricalAccuracy, classes, SPARSE, {"k": 2})
row(metrics.BinaryCrossentropy, binary, BINARY, {})
row(metrics.CategoricalCrossentropy, classes, ONE_HOT, {})
row(metrics.SparseCategoricalCrossentropy, classes, SPARSE, {})
row(metrics.KLDivergence, classes, ONE_HOT, {})
row(metrics.Poisson, classes, ONE_HOT, {})
row(metrics.Hinge, numbers, NUMBER, {})
row(metrics.SquaredHinge, numbers, NUMBER, {})
row(metrics.CategoricalHinge, numbers, NUMBER, {})
row(metrics.MeanSquaredError, numbers, NUMBER, {})
row(metrics.RootMeanSquaredError, numbers, NUMBER, {})
row(metrics.MeanAbsoluteError, numbers, NUMBER, {})
row(metrics.MeanAbsolutePercentageError, numbers, NUMBER, {})
row(metrics.MeanSquaredLogarithmicError, numbers, NUMBER, {})
row(metrics.LogCoshError, numbers, NUMBER, {})
row(metrics.CosineSimilarity, numbers, NUMBER, {})
for counts in (metrics.TruePositives, metrics.TrueNegatives, metrics.FalsePositives, metrics.FalseNegatives):
    row(counts, binary, BINARY, {}, {"thresholds": 0.3})
row(metrics.Precision, labels, BINARY, {}, {"thresholds": 0.4, "class_id": 1}, {"top_k": 2})
row(metrics.Recall, labels, BINARY, {}, {"thresholds": 0.4, "class_id": 1}, {"top_k": 2})
row(metrics.PrecisionAtRecall, binary, BINARY, {"recall": 0.5})
row(metrics.RecallAtPrecision, binary, BINARY, {"precision": 0.5})
row(metrics.SensitivityAtSpecificity, binary, BINARY, {"specificity": 0.5})
row(metrics.SpecificityAtSensitivity, binary, BINARY, {"sensitivity": 0.5})
row(
    metrics.AUC,
    labels,
    BINARY,
    {},
    {"curve": "PR", "num_thresholds": 50},
    {"multi_label": True},
    {"summation_method": "minoring"},
)
row(metrics.F1Score, labels, BINARY, {"threshold": 0.5, "average": "macro"}, {"threshold": 0.5, "average": "micro"})
row(metrics.FBetaScore, labels, BINARY, {"threshold": 0.5, "average": "weighted", "beta": 2.0})
row(metrics.IoU, classes, SPARSE, {"num_classes": 4, "target_class_ids": [0, 2], "sparse_y_pred": False})
row(metrics.BinaryIoU, binary, BINARY, {"target_class_ids": [0, 1], "threshold": 0.5})
row(metrics.MeanIoU, classes, SPARSE, {"num_classes": 4, "sparse_y_pred": False})
row(metrics.OneHotIoU, classes, ONE_HOT, {"num_classes": 4, "target_class_ids": [1]})
row(metrics.OneHotMeanIoU, classes, ONE_HOT, {"num_classes": 4})
row(metrics.R2Score, numbers, NUMBER, {}, {"class_aggregation": "variance_weighted_average"})
row(metrics.PearsonCorrelation, numbers, NUMBER, {})
row(metrics.ConcordanceCorrelation, numbers, NUMBER, {})
covers(
    metrics.MeanMetricWrapper,
    {"a function": lambda: training(numbers(), NUMBER, metrics=[metrics.MeanMetricWrapper(_cubed, name="cubed")])},
    gradient=False,
)
covers(
    metrics.Mean,
    {"a subclass": lambda: training(numbers(), NUMBER, metrics=[_Own(name="own")])},
    gradient=False,
    note="Its subclasses",
)
base(metrics.Sum, "Keras gives it targets and outputs, of which it makes nothing; subclass Mean")
base(metrics.Metric, "Its subclasses, if they extend one of those above")


def _cubed(y_true: Any, y_pred: Any) -> Any:
    return keras.ops.mean(keras.ops.abs(y_true - y_pred) ** 3, axis=-1)


class _Own(metrics.Mean):
    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        return super().update_state(keras.ops.mean(keras.ops.abs(y_pred), axis=-1), sample_weight)
