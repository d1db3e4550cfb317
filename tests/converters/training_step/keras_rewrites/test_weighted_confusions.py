"""Metrics of segmentations take the weights of rows."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers, metrics

from edgefl_converters.building.building import build
from edgefl_converters.training_step.keras_rewrites.rewriting import rewritten_keras
from edgefl_converters.verification.agreement import check_agreement
from edgefl_converters.verification.runtimes import installed_runtimes

WEIGHTS = np.array([2, 0, 1, 3], np.float32)
METRICS = {
    "binary": (lambda: metrics.BinaryIoU(dtype="float32"), (4, 3, 3, 1), (4, 3, 3, 1)),
    "of classes": (lambda: metrics.MeanIoU(3, sparse_y_pred=False), (4, 3, 3), (4, 3, 3, 3)),
    "of classes that come first": (lambda: metrics.OneHotMeanIoU(3, axis=1), (4, 3, 5), (4, 3, 5)),
}


@pytest.mark.parametrize("name", METRICS)
def test_the_weight_of_a_row_is_that_of_all_its_positions(name):
    make, *shapes = METRICS[name]
    generator = np.random.default_rng(1)
    target, prediction = (generator.uniform(size=shape).astype(np.float32) for shape in shapes)
    if name != "of classes that come first":
        target = (target * 2 if name == "binary" else target * 3).astype(np.int32)
    found, expected = make(), make()
    with rewritten_keras("weighted_confusions"):
        found.update_state(target, prediction, sample_weight=WEIGHTS)
    for row, weight in enumerate(WEIGHTS.astype(int)):
        for _ in range(weight):
            expected.update_state(target[row : row + 1], prediction[row : row + 1])
    np.testing.assert_allclose(found.total_cm, expected.total_cm)


@pytest.mark.slow
def test_a_segmentation_with_weighted_metrics_converts():
    given = keras.Input((4, 4, 1))
    hidden = layers.Conv2D(2, 3, padding="same", activation="tanh")(given)
    model = keras.Model(given, layers.Conv2D(1, 1, activation="sigmoid")(hidden))
    judged = ["accuracy", metrics.BinaryIoU(), metrics.AUC(num_thresholds=20)]
    model.compile(keras.optimizers.SGD(0.1), "binary_crossentropy", weighted_metrics=judged)
    check_agreement(model, build(model, batch_size=4).data, runtimes=installed_runtimes()[:1]).require()
