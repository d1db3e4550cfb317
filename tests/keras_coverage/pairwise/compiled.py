"""Losses, optimizers and metrics: what a small model is compiled with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import layers, losses, metrics, optimizers

from keras_coverage.pairwise.subjects import Built, Settings, Subject, add
from keras_coverage.pairwise.values import values_of

_AROUND = ("rank", "embedding")
Output = Callable[[], Any]


def _own(settings: Settings) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name not in _AROUND}


def _headed(output: str | None, rank: int = 1, units: int = 3) -> tuple[Any, Any]:
    given = keras.Input({1: (5,), 2: (3, 5), 3: (2, 3, 5)}[rank])
    return given, layers.Dense(units, output)(layers.Dense(4, "tanh")(given))


def loss(name: str, output: str | None, units: int = 3, **values: Sequence[Any]) -> None:
    """A subject for a loss, behind outputs that it is defined on."""
    api = getattr(losses, name)

    def build(api: Any, settings: Settings) -> Built:
        logits = settings.get("from_logits", False)
        given, made = _headed(None if logits else output, settings["rank"], units)
        return Built([given], [made], {"loss": api(**_own(settings))})

    add(Subject("losses", api, values_of(api, rank=(1, 2, 3), **values), build))


for _name in ("MeanSquaredError", "MeanAbsoluteError", "LogCosh", "Hinge", "SquaredHinge", "CategoricalHinge"):
    loss(_name, None)
loss("CosineSimilarity", None)
loss("Huber", None, delta=(1.0, 0.3))
for _name in ("MeanAbsolutePercentageError", "MeanSquaredLogarithmicError", "Poisson"):
    loss(_name, "softplus")
loss("KLDivergence", "softmax")
loss("BinaryCrossentropy", "sigmoid", 2)
loss("BinaryFocalCrossentropy", "sigmoid", 2, apply_class_balancing=(False, True))
loss("CategoricalCrossentropy", "softmax")
loss("CategoricalFocalCrossentropy", "softmax")
loss("CategoricalGeneralizedCrossEntropy", "softmax", q=(0.5, 0.8))
loss("SparseCategoricalCrossentropy", "softmax", axis=(-1,))
loss("Dice", "sigmoid", axis=(None, -1, 1))
loss("Tversky", "sigmoid", axis=(None, -1, 1), alpha=(0.5, 0.7))


def optimizer(name: str, rate: float, **values: Sequence[Any]) -> None:
    """A subject for an optimizer, which trains kernels, biases and perhaps an embedding."""
    api = getattr(optimizers, name)

    def build(api: Any, settings: Settings) -> Built:
        given = keras.Input((3,), dtype="int32" if settings["embedding"] else "float32")
        features = layers.Flatten()(layers.Embedding(7, 2)(given)) if settings["embedding"] else given
        outputs = layers.Dense(2)(layers.Dense(3, "tanh")(features))
        return Built([given], [outputs], {"loss": "mse", "optimizer": api(**_own(settings))})

    schedule = optimizers.schedules.ExponentialDecay(rate, 3, 0.9)
    add(
        Subject(
            "optimizers",
            api,
            values_of(api, learning_rate=(rate, schedule), embedding=(False, True), **values),
            build,
            alone=True,
        )
    )


optimizer("SGD", 0.1)
optimizer("Adam", 0.01)
optimizer("AdamW", 0.01, weight_decay=(0.004, 0.1))
optimizer("RMSprop", 0.01)
optimizer("Adagrad", 0.05)
optimizer("Adadelta", 1.0)
optimizer("Adamax", 0.01)
optimizer("Nadam", 0.01)
optimizer(
    "Ftrl",
    0.05,
    learning_rate_power=(-0.5, -0.3),
    l1_regularization_strength=(0.0, 0.01),
    l2_regularization_strength=(0.0, 0.01),
    l2_shrinkage_regularization_strength=(0.0, 0.1),
    beta=(0.0, 0.5),
)
optimizer("Lion", 0.001)
optimizer("Lamb", 0.01)
optimizer(
    "Adafactor",
    0.01,
    beta_2_decay=(-0.8, -0.5),
    epsilon_1=(1e-30, 1e-8),
    epsilon_2=(1e-3, 1e-2),
    clip_threshold=(1.0, 0.5),
    relative_step=(True, False),
)
optimizer(
    "Muon",
    0.01,
    adam_beta_1=(0.9, 0.8),
    adam_beta_2=(0.999, 0.9),
    adam_weight_decay=(0.004, None),
    weight_decay=(0.004, None),
    exclude_layers=(None, ["dense"]),
    exclude_embeddings=(True, False),
    muon_a=(3.4445,),
    muon_b=(-4.775,),
    muon_c=(2.0315,),
    adam_lr_ratio=(1, 0.5),
    momentum=(0.95, 0.8),
    ns_steps=(5, 2),
    rms_rate=(0.2, None),
    nesterov=(True, False),
)
optimizer("ScheduleFreeAdamW", 0.01, warmup_steps=(0, 3))


def metric(name: str, output: str | None, targets: str, units: int = 3, **values: Sequence[Any]) -> None:
    """A subject for a metric, once without and once with the weights of rows."""
    api = getattr(metrics, name)

    def build(api: Any, settings: Settings) -> Built:
        logits = settings.get("from_logits", False)
        given, made = _headed(None if logits else output, settings["rank"], units)
        plain, weighted = (api(name=name, **_own(settings)) for name in ("plain", "weighted"))
        return Built([given], [made], {"loss": targets, "metrics": [plain], "weighted_metrics": [weighted]})

    add(Subject("metrics", api, values_of(api, **{"rank": (1, 2), **values}), build))


NUMBERS, BINARY, ONE_HOT, CLASSES = (
    "mse",
    "binary_crossentropy",
    "categorical_crossentropy",
    "sparse_categorical_crossentropy",
)
for _name in (
    "Accuracy",
    "MeanSquaredError",
    "RootMeanSquaredError",
    "MeanAbsoluteError",
    "MeanAbsolutePercentageError",
    "MeanSquaredLogarithmicError",
    "LogCoshError",
    "Hinge",
    "SquaredHinge",
    "CategoricalHinge",
    "CosineSimilarity",
    "PearsonCorrelation",
    "ConcordanceCorrelation",
):
    metric(_name, None, NUMBERS)
metric(
    "R2Score",
    None,
    NUMBERS,
    rank=(1,),
    class_aggregation=("uniform_average", "sum", "variance_weighted_average", None),
    num_regressors=(0, 2),
)
metric("BinaryAccuracy", "sigmoid", BINARY, threshold=(0.5, 0.3))
metric("BinaryCrossentropy", "sigmoid", BINARY)
metric("CategoricalAccuracy", "softmax", ONE_HOT)
metric("CategoricalCrossentropy", "softmax", ONE_HOT)
metric("TopKCategoricalAccuracy", "softmax", ONE_HOT, k=(2, 1))
metric("KLDivergence", "softmax", ONE_HOT)
metric("Poisson", "softmax", ONE_HOT)
metric("SparseCategoricalAccuracy", "softmax", CLASSES)
metric("SparseCategoricalCrossentropy", "softmax", CLASSES, axis=(-1,))
metric("SparseTopKCategoricalAccuracy", "softmax", CLASSES, k=(2, 1), from_sorted_ids=(False,))
for _name in ("TruePositives", "TrueNegatives", "FalsePositives", "FalseNegatives"):
    metric(_name, "sigmoid", BINARY)
for _name in ("Precision", "Recall"):
    metric(_name, "sigmoid", BINARY, top_k=(None, 2))
for _name, _argument in {
    "PrecisionAtRecall": "recall",
    "RecallAtPrecision": "precision",
    "SensitivityAtSpecificity": "specificity",
    "SpecificityAtSensitivity": "sensitivity",
}.items():
    metric(_name, "sigmoid", BINARY, **{_argument: (0.5, 0.8)})
metric(
    "AUC",
    "sigmoid",
    BINARY,
    curve=("ROC", "PR"),
    summation_method=("interpolation", "minoring", "majoring"),
    thresholds=(None, [0.3, 0.6]),
    multi_label=(False, True),
    num_labels=(None, 3),
    label_weights=(None, [0.2, 0.3, 0.5]),
)
for _name in ("F1Score", "FBetaScore"):
    metric(
        _name,
        "sigmoid",
        BINARY,
        rank=(1,),
        average=(None, "micro", "macro", "weighted"),
        **({"beta": (1.0, 2.0)} if _name == "FBetaScore" else {}),
    )
metric("BinaryIoU", "sigmoid", BINARY, target_class_ids=((0, 1), [1]), threshold=(0.5, 0.3))
metric(
    "IoU",
    "softmax",
    CLASSES,
    4,
    num_classes=(4,),
    target_class_ids=([0, 2], [1]),
    sparse_y_pred=(False,),
    sparse_y_true=(True,),
    axis=(-1,),
)
metric("MeanIoU", "softmax", CLASSES, 4, num_classes=(4,), sparse_y_pred=(False,), sparse_y_true=(True,), axis=(-1,))
metric(
    "OneHotIoU",
    "softmax",
    ONE_HOT,
    4,
    num_classes=(4,),
    target_class_ids=([0, 2], [1]),
    sparse_y_pred=(False,),
    axis=(-1,),
)
metric("OneHotMeanIoU", "softmax", ONE_HOT, 4, num_classes=(4,), sparse_y_pred=(False,), axis=(-1,))
