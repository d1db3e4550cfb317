"""Values from the summed states of several batches are those that Keras reports over all of them."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers, metrics

from edgefl.errors import UnsupportedModelError
from edgefl.manifest import Metric
from edgefl.metrics import add_states, compute
from edgefl_converters.training_step.batch_metrics import batch_metrics
from edgefl_converters.training_step.specification import specify

BATCH, BATCHES = 16, 5
METRICS = {
    "AUC": lambda: metrics.AUC(),
    "AUC minoring": lambda: metrics.AUC(summation_method="minoring", num_thresholds=20),
    "AUC majoring": lambda: metrics.AUC(summation_method="majoring"),
    "AUC PR": lambda: metrics.AUC(curve="PR"),
    "AUC PR majoring": lambda: metrics.AUC(curve="PR", summation_method="majoring"),
    "AUC PRGAIN": lambda: metrics.AUC(curve="PRGAIN"),
    "AUC multi": lambda: metrics.AUC(multi_label=True, num_labels=3),
    "AUC weighted": lambda: metrics.AUC(multi_label=True, num_labels=3, label_weights=[1.0, 2.0, 0.5]),
    "Precision": lambda: metrics.Precision(),
    "Recall": lambda: metrics.Recall(thresholds=0.3),
    "PrecisionAtRecall": lambda: metrics.PrecisionAtRecall(0.7),
    "RecallAtPrecision": lambda: metrics.RecallAtPrecision(0.6),
    "SensitivityAtSpecificity": lambda: metrics.SensitivityAtSpecificity(0.7),
    "SpecificityAtSensitivity": lambda: metrics.SpecificityAtSensitivity(0.7),
    "TruePositives": lambda: metrics.TruePositives(),
    "FalseNegatives": lambda: metrics.FalseNegatives(0.2),
    "F1 macro": lambda: metrics.F1Score(average="macro", threshold=0.5),
    "F1 weighted": lambda: metrics.F1Score(average="weighted", threshold=0.4),
    "F2 micro": lambda: metrics.FBetaScore(average="micro", beta=2.0, threshold=0.5),
    "OneHotIoU": lambda: metrics.OneHotIoU(3, [0, 2]),
    "OneHotMeanIoU": lambda: metrics.OneHotMeanIoU(3),
    "R2": lambda: metrics.R2Score(),
    "R2 weighted": lambda: metrics.R2Score(class_aggregation="variance_weighted_average"),
    "R2 adjusted": lambda: metrics.R2Score(num_regressors=3),
    "RMSE": lambda: metrics.RootMeanSquaredError(),
    "MAE": lambda: metrics.MeanAbsoluteError(),
    "Precision at several thresholds": lambda: metrics.Precision(thresholds=[0.2, 0.8]),
    "Recall at several thresholds": lambda: metrics.Recall(thresholds=[0.2, 0.4, 0.8]),
    "TruePositives at several thresholds": lambda: metrics.TruePositives(thresholds=[0.2, 0.8]),
    "F1 of each class": lambda: metrics.F1Score(average=None, threshold=0.5),
    "F2 of each class": lambda: metrics.FBetaScore(average=None, beta=2.0),
    "R2 of each output": lambda: metrics.R2Score(class_aggregation=None),
    "R2 of each output, adjusted": lambda: metrics.R2Score(class_aggregation=None, num_regressors=3),
}


def model_with(metric):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, "sigmoid")])
    model.compile("sgd", "mse", metrics=[metric])
    return model


@pytest.mark.parametrize("name", METRICS)
def test_summed_states_give_what_keras_gives(name):
    found = batch_metrics(specify(model_with(METRICS[name]()), batch_size=BATCH))
    whole, sums = METRICS[name](), {}
    generator = np.random.default_rng(5)
    for _ in range(BATCHES):
        prediction = generator.uniform(size=(BATCH, 3)).astype(np.float32)
        target = (prediction + generator.normal(0, 0.5, (BATCH, 3)) > 0.5).astype(np.float32)
        whole.update_state(target, prediction)
        for metric in found:
            states = metric.update(target, prediction, np.ones(BATCH, np.float32))
            # As it travels: flat.
            add_states(sums, {key: np.ravel(state) for key, state in zip(metric.states, states, strict=True)})
    expected = np.asarray(whole.result())
    names = [found[0].metric.name]
    if expected.ndim:
        names = [f"{names[0]}[{place}]" for place in range(len(expected))]
    assert [metric.name for metric in found] == names
    for metric, value in zip(found, expected.ravel(), strict=True):
        described = Metric(metric.name, metric.finaliser, metric.states, metric.settings)
        own = compute(described, [sums[key] for key in metric.states])
        assert own == pytest.approx(float(value), rel=1e-4, abs=1e-6)


class Unknown(metrics.Metric):
    def __init__(self):
        super().__init__(name="unknown")
        self.seen = self.add_variable((), "zeros", name="seen")

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.seen.assign_add(1.0)

    def result(self):
        return 1.0 / self.seen


def test_a_metric_of_ones_own_that_is_no_mean_is_refused_with_the_way_out():
    with pytest.raises(UnsupportedModelError, match="unknown") as caught:
        batch_metrics(specify(model_with(Unknown()), batch_size=BATCH))
    assert "keras.metrics.Mean" in str(caught.value.hint)
