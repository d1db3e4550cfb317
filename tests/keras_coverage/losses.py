"""Losses, with their settings and reductions."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, losses

from keras_coverage.models import training
from keras_coverage.rows import covers

PROBABILITY, CLASSES, NUMBERS = (
    lambda: layers.Dense(2, "sigmoid"),
    lambda: layers.Dense(3, "softmax"),
    lambda: layers.Dense(3),
)
POSITIVE = lambda: layers.Dense(3, "softplus")  # noqa: E731


def row(api: Any, output: Any, *variants: dict[str, Any], **more: Any) -> None:
    """A row for a loss with each of the settings."""
    models = {
        ", ".join(f"{key}={value}" for key, value in settings.items()) or "as it is": (
            lambda settings=settings: training(output(), api(**settings))
        )
        for settings in variants
    }
    covers(api, models, **more)


SUM, MEAN = {"reduction": "sum"}, {"reduction": "mean_with_sample_weight"}
row(losses.MeanSquaredError, NUMBERS, {}, SUM, MEAN)
row(losses.MeanAbsoluteError, NUMBERS, {}, SUM)
row(losses.MeanAbsolutePercentageError, POSITIVE, {})
row(losses.MeanSquaredLogarithmicError, POSITIVE, {})
row(losses.CosineSimilarity, NUMBERS, {}, {"axis": -1, **SUM})
row(losses.Huber, NUMBERS, {}, {"delta": 0.3})
row(losses.LogCosh, NUMBERS, {})
row(losses.Hinge, NUMBERS, {})
row(losses.SquaredHinge, NUMBERS, {})
row(losses.CategoricalHinge, NUMBERS, {})
row(losses.KLDivergence, CLASSES, {})
row(losses.Poisson, POSITIVE, {})
row(losses.BinaryCrossentropy, PROBABILITY, {}, {"label_smoothing": 0.2})
row(losses.BinaryFocalCrossentropy, PROBABILITY, {}, {"apply_class_balancing": True, "gamma": 1.5})
row(losses.CategoricalCrossentropy, CLASSES, {}, {"label_smoothing": 0.1}, MEAN)
row(losses.CategoricalFocalCrossentropy, CLASSES, {})
row(losses.CategoricalGeneralizedCrossEntropy, CLASSES, {})
covers(
    losses.SparseCategoricalCrossentropy,
    {
        "probabilities": lambda: training(CLASSES(), losses.SparseCategoricalCrossentropy()),
        "logits": lambda: training(NUMBERS(), losses.SparseCategoricalCrossentropy(from_logits=True)),
        "a class ignored": lambda: training(CLASSES(), losses.SparseCategoricalCrossentropy(ignore_class=1)),
        "at each position": lambda: training(CLASSES(), losses.SparseCategoricalCrossentropy(), shape=(4, 5)),
        "reduction=sum": lambda: training(CLASSES(), losses.SparseCategoricalCrossentropy(reduction="sum")),
    },
)
row(losses.Dice, PROBABILITY, {}, {"axis": 1})
row(losses.Tversky, PROBABILITY, {}, {"alpha": 0.7, "beta": 0.3, "axis": 1})
row(losses.Circle, layers.UnitNormalization, {"gamma": 8}, note="Rows are compared, so the last batch is not padded")
covers(losses.CTC, {"half as many labels as steps": lambda: training(layers.Dense(4), losses.CTC(), shape=(6, 5))})
covers(losses.Loss, {"a loss of your own": lambda: training(NUMBERS(), _Own())}, note="Its subclasses")


class _Own(losses.Loss):
    def call(self, y_true: Any, y_pred: Any) -> Any:
        return keras.ops.mean(keras.ops.abs(y_true - y_pred) ** 1.5, axis=-1)
