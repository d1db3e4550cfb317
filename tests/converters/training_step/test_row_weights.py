"""Losses over the real rows of a padded batch equal what Keras gives for those rows alone."""

from __future__ import annotations

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.src.backend import set_keras_mask

from edgefl_converters.training_step.loss_forms import form_of
from edgefl_converters.training_step.ports import Port
from edgefl_converters.training_step.row_weights import RowWeightedLoss, expand, real_rows

BATCH = 8
REDUCTIONS = ["sum_over_batch_size", "sum", "mean_with_sample_weight"]
OUTPUTS = {"one per row": (3,), "one per step": (5, 3), "one per pixel": (2, 4, 3), "as many steps as rows": (BATCH, 3)}


def row_weighted(loss, target, prediction, parts=1):
    ports = (Port("y", target.shape, str(target.dtype)), Port("output", tuple(prediction.shape), "float32"))
    return RowWeightedLoss(loss, form_of(loss, *ports), parts)


def batch(shape, rows, seed=0):
    random = np.random.default_rng(seed)
    prediction = tf.nn.softmax(random.normal(size=(BATCH, *shape)).astype(np.float32))
    labels = random.integers(0, shape[-1], (BATCH, *shape[:-1])).astype(np.int32)
    user = random.uniform(0.2, 3.0, BATCH).astype(np.float32)
    sent = np.where(np.arange(BATCH) < rows, user * BATCH / rows, 0).astype(np.float32)
    return labels, prediction, user, sent


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("shape", OUTPUTS.values(), ids=OUTPUTS.keys())
@pytest.mark.parametrize("rows", [1, 3, BATCH])
def test_padding_changes_nothing(reduction, shape, rows):
    labels, prediction, user, sent = batch(shape, rows)
    loss = keras.losses.SparseCategoricalCrossentropy(reduction=reduction)
    got = row_weighted(loss, labels, prediction)(labels, prediction, tf.constant(sent))
    weights = user[:rows].reshape([rows] + [1] * (len(shape) - 1))
    expected = loss(labels[:rows], prediction[:rows], weights)
    assert float(got) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize(("reduction", "shape"), itertools.product(REDUCTIONS, OUTPUTS.values()))
def test_a_batch_of_padding_alone_costs_nothing(reduction, shape):
    labels, prediction, _, _ = batch(shape, 1)
    loss = keras.losses.SparseCategoricalCrossentropy(reduction=reduction)
    assert float(row_weighted(loss, labels, prediction)(labels, prediction, tf.zeros(BATCH))) == 0.0


def test_the_smallest_weight_still_makes_a_row_real():
    weights = tf.constant([1.0, np.finfo(np.float32).tiny, 0.0])
    assert real_rows(weights).numpy().tolist() == [1.0, 1.0, 0.0]


def test_weights_get_the_rank_of_a_loss_per_position():
    weights = tf.ones(BATCH)
    assert expand(weights, 1).shape == (BATCH,)
    assert expand(weights, 2).shape == (BATCH, 1)
    assert expand(weights, 3).shape == (BATCH, 1, 1)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("rows", [1, 3, BATCH])
def test_masked_positions_are_those_of_real_rows(reduction, rows):
    labels, prediction, user, sent = batch((5, 3), rows)
    mask = np.random.default_rng(1).integers(0, 2, (BATCH, 5)).astype(bool)
    mask[:, 0] = True
    prediction = tf.identity(prediction)
    set_keras_mask(prediction, tf.constant(mask))
    loss = keras.losses.SparseCategoricalCrossentropy(reduction=reduction)
    got = row_weighted(loss, labels, prediction)(labels, prediction, tf.constant(sent))
    real = tf.identity(prediction[:rows])
    set_keras_mask(real, tf.constant(mask[:rows]))
    expected = loss(labels[:rows], real, user[:rows, None])
    assert float(got) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("rows", [2, BATCH])
def test_an_ignored_class_is_ignored_in_real_rows(reduction, rows):
    labels, prediction, user, sent = batch((5, 3), rows)
    loss = keras.losses.SparseCategoricalCrossentropy(reduction=reduction, ignore_class=1)
    got = row_weighted(loss, labels, prediction)(labels, prediction, tf.constant(sent))
    expected = loss(labels[:rows], prediction[:rows], user[:rows, None])
    assert float(got) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("loss", [keras.losses.Dice(), keras.losses.Tversky(alpha=0.3, beta=0.7)], ids=str)
@pytest.mark.parametrize("rows", [2, BATCH])
def test_a_loss_of_the_whole_batch_does_not_see_padding(loss, rows):
    labels, prediction, user, sent = batch((3,), rows)
    target = np.eye(3, dtype=np.float32)[labels]
    got = row_weighted(loss, target, prediction)(tf.constant(target), prediction, tf.constant(sent))
    expected = loss(target[:rows], prediction[:rows], user[:rows])
    assert float(got) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize(("reduction", "shape"), itertools.product(REDUCTIONS, OUTPUTS.values()))
@pytest.mark.parametrize("rows", [1, 3, BATCH])
def test_the_mean_over_parts_of_a_batch_is_its_loss(reduction, shape, rows):
    labels, prediction, _, sent = batch(shape, rows)
    loss = keras.losses.SparseCategoricalCrossentropy(reduction=reduction)
    whole = row_weighted(loss, labels, prediction)(labels, prediction, tf.constant(sent))
    of_part = row_weighted(loss, labels, prediction, parts=4)
    of_part.batch_weight = tf.constant(sent)
    cuts = [slice(first, first + 2) for first in range(0, BATCH, 2)]
    parts = [of_part(labels[cut], prediction[cut], tf.constant(sent[cut])) for cut in cuts]
    assert np.mean(parts) == pytest.approx(float(whole), rel=1e-5)
