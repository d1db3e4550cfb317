"""Losses over a batch of which some rows are padding.

A training step gets row weights ``user weight x B / n`` on its n real rows and 0 on padding. Keras divides a loss by
B, so the gradient is that of a batch of n rows.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import tensorflow as tf
from keras.src.backend import get_keras_mask, set_keras_mask

from edgefl.errors import UnsupportedModelError
from edgefl_converters.training_step.loss_forms import LossForm, ignored_class

__all__ = [
    "CountedPositions",
    "RowWeightedLoss",
    "activity_of_real_rows",
    "expand",
    "mean_weight",
    "real_rows",
    "reduced",
]


def real_rows(sample_weight: tf.Tensor) -> tf.Tensor:
    """1.0 for every row with a weight above 0, else 0.0; shape ``[B]``."""
    return tf.cast(sample_weight > 0.0, tf.float32)


def mean_weight(sample_weight: tf.Tensor) -> tf.Tensor:
    """The mean weight of the real rows, a scalar: what a value of a whole batch is multiplied with."""
    return tf.math.divide_no_nan(tf.reduce_sum(sample_weight), tf.reduce_sum(real_rows(sample_weight)))


def expand(sample_weight: tf.Tensor, rank: int) -> tf.Tensor:
    """Gives row weights ``[B]`` the rank of what they multiply, so that they never broadcast along another axis."""
    return sample_weight if rank <= 1 else tf.reshape(sample_weight, [-1] + [1] * (rank - 1))


def reduced(loss: tf.Tensor, batch_weight: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The loss of real rows as what its gradient is taken of and as what Keras reports.

    They differ where nothing reduced it (``reduction=None``): a gradient is that of the sum, reported is the mean.

    Args:
        loss: a scalar, or with a value for each row or position.
        batch_weight: weights of all rows of the batch.
    """
    if not loss.shape.rank:
        return loss, loss
    share: tf.Tensor | float = 1.0
    if loss.shape[0] == batch_weight.shape[0]:
        real = real_rows(batch_weight)
        loss, share = loss * _per_row(real, loss.shape.rank), tf.reduce_mean(real)
    total = tf.reduce_sum(loss)
    return total, tf.math.divide_no_nan(total, share * float(loss.shape.num_elements()))


class RowWeightedLoss:
    """A Keras loss of one output, over the real rows of a batch or of one of the equal parts that it is cut into.

    The mean over the parts is the loss of the batch.

    Args:
        loss: the compiled ``keras.losses.Loss``.
        form: what it is.
        parts: how many there are.

    Attributes:
        batch_weight: the row weights of the whole batch, to be set before the loss of a part is computed.
        batch_positions: likewise what `CountedPositions` found in the whole batch, where it found anything.
    """

    def __init__(self, loss: Any, form: LossForm, parts: int = 1) -> None:
        self._loss = loss
        self._form = form
        self._parts = parts
        self.name = form.name
        self.batch_weight: tf.Tensor | None = None
        self.batch_positions: tf.Tensor | None = None

    def __call__(self, target: tf.Tensor, prediction: tf.Tensor, sample_weight: tf.Tensor) -> tf.Tensor:
        """Computes the loss; ``sample_weight`` has shape ``[B]``, user weights times B / n."""
        mask = get_keras_mask(prediction)
        if self._parts > 1:
            self._require_parts()
            return self._of_part(target, prediction, sample_weight, mask)
        if self._form.together:
            return self._of_all_rows(target, prediction, sample_weight)
        return self._of_batch(target, prediction, sample_weight, mask)

    def _require_parts(self) -> None:
        hint = "Leave `micro_batch` out; a smaller `batch_size` needs less memory too."
        if self._form.together:
            why = "it is computed from all rows of a batch together"
        elif self._form.rank == 0:
            why = "it is a quotient of sums over the whole batch"
        elif not _reduces(self._loss):
            why = "it has no reduction"
            hint = f"Compile it with reduction='sum', which trains the same. {hint}"
        else:
            return
        raise UnsupportedModelError(
            f"The loss {self.name!r} cannot be computed for a part of a batch: {why}.", hint=hint
        )

    def _of_part(self, target: tf.Tensor, prediction: tf.Tensor, sample_weight: tf.Tensor, mask: Any) -> tf.Tensor:
        """A part of a batch: what Keras divides by has to be the whole batch's."""
        batch_weight = self.batch_weight
        if _counts_positions(self._loss, mask):
            own = _positions(self._loss, target, prediction, mask, sample_weight, batch_weight)
            share = tf.math.divide_no_nan(own, self.batch_positions)
            loss = self._of_positions(target, prediction, sample_weight, mask, real_rows(batch_weight))
            return loss * (self._parts * share)
        weight = expand(sample_weight, self._form.rank)
        if self._loss.reduction == "sum":
            return self._loss(target, prediction, weight * self._parts * tf.reduce_mean(real_rows(batch_weight)))
        loss = self._loss(target, prediction, weight)
        if self._loss.reduction == "mean_with_sample_weight":
            share = tf.math.divide_no_nan(tf.reduce_sum(sample_weight), tf.reduce_sum(batch_weight))
            return loss * (self._parts * share)
        return loss

    def _of_all_rows(self, target: tf.Tensor, prediction: tf.Tensor, sample_weight: tf.Tensor) -> tf.Tensor:
        """As Keras does it with a full batch; rows that fill one up weigh like the others."""
        share = tf.reduce_mean(real_rows(sample_weight))
        mean = mean_weight(sample_weight) * share
        if self._form.rank == 0:
            return self._loss(target, prediction, None) * mean
        weight = tf.where(sample_weight > 0.0, sample_weight * share, mean)
        return self._loss(target, prediction, expand(weight, self._form.rank))

    def _of_batch(self, target: tf.Tensor, prediction: tf.Tensor, sample_weight: tf.Tensor, mask: Any) -> tf.Tensor:
        real = real_rows(sample_weight)
        if self._form.rank == 0:
            # A quotient of sums over everything, in which zeros do not count.
            target, prediction = (each * _per_row(real, len(each.shape)) for each in (target, prediction))
            return self._loss(target, prediction, mean_weight(sample_weight) * tf.reduce_mean(real))
        if mask is not None or ignored_class(self._loss) is not None:
            return self._of_positions(target, prediction, sample_weight, mask, real)
        if self._loss.reduction == "sum" or not _reduces(self._loss):
            # The factor B / n is for losses that divide by B; a sum does not divide.
            sample_weight *= tf.reduce_mean(real)
        return self._loss(target, prediction, expand(sample_weight, self._form.rank))

    def _of_positions(
        self, target: tf.Tensor, prediction: tf.Tensor, sample_weight: tf.Tensor, mask: Any, batch_rows: tf.Tensor
    ) -> tf.Tensor:
        """Keras divides by the positions that are not masked: those of padding must not count."""
        prediction = tf.identity(prediction)
        set_keras_mask(prediction, _unmasked(prediction, mask, sample_weight))
        return self._loss(target, prediction, expand(sample_weight * tf.reduce_mean(batch_rows), self._form.rank))


class CountedPositions:
    """Counts what Keras divides a loss by where positions are masked or ignored; computes no loss.

    Args:
        loss: the compiled ``keras.losses.Loss``.
        form: what it is.

    Attributes:
        found: a scalar once it was called as the loss would be; None where Keras divides by something else.
    """

    def __init__(self, loss: Any, form: LossForm) -> None:
        self._loss = loss
        self.name = form.name
        self.found: tf.Tensor | None = None

    def __call__(self, target: tf.Tensor, prediction: tf.Tensor, sample_weight: tf.Tensor) -> tf.Tensor:
        """Counts; ``sample_weight`` has shape ``[B]``, for all rows of a batch."""
        mask = get_keras_mask(prediction)
        if _counts_positions(self._loss, mask):
            self.found = _positions(self._loss, target, prediction, mask, sample_weight, sample_weight)
        return tf.zeros(())


def _counts_positions(loss: Any, mask: Any) -> bool:
    return (mask is not None or ignored_class(loss) is not None) and _reduces(loss) and loss.reduction != "sum"


def _positions(
    loss: Any, target: tf.Tensor, prediction: tf.Tensor, mask: Any, sample_weight: tf.Tensor, batch_weight: tf.Tensor
) -> tf.Tensor:
    """Counts positions that are neither masked nor ignored; each as much as its row where Keras divides by weights."""
    counted = _unmasked(prediction, mask, sample_weight)
    ignored = ignored_class(loss)
    if ignored is not None:
        classes = tf.reshape(target, counted.shape)
        counted = tf.logical_and(counted, tf.not_equal(classes, tf.cast(ignored, classes.dtype)))
    each = tf.cast(counted, tf.float32)
    if loss.reduction == "mean_with_sample_weight":
        each *= expand(sample_weight, len(each.shape))
        return tf.math.divide_no_nan(tf.reduce_sum(each), tf.reduce_sum(batch_weight))
    return tf.reduce_sum(each)


def _unmasked(prediction: tf.Tensor, mask: Any, sample_weight: tf.Tensor) -> tf.Tensor:
    """Tells which positions of a prediction belong to real rows and are not masked, bool ``[B, ...]``."""
    real = _per_row(real_rows(sample_weight), len(prediction.shape) - 1) * tf.ones(prediction.shape[:-1]) > 0.0
    return real if mask is None else tf.logical_and(mask, real)


def _reduces(loss: Any) -> bool:
    return loss.reduction not in (None, "none")


@contextlib.contextmanager
def activity_of_real_rows(layers: Iterable[Any], sample_weight: tf.Tensor, batch_weight: tf.Tensor) -> Iterator[None]:
    """Lets regularizers of activations see zeros in padding rows, and Keras divide by the real ones.

    Args:
        layers: of the model.
        sample_weight: of the rows that the layers see, 0 on padding rows.
        batch_weight: of the whole batch; the mean over its equal parts is then what it gives.
    """
    regularized = [(layer, layer.activity_regularizer) for layer in layers if layer.activity_regularizer is not None]
    real = real_rows(sample_weight)
    share = tf.reduce_mean(real_rows(batch_weight))
    for layer, regularizer in regularized:
        layer.activity_regularizer = _OfRealRows(regularizer, real, share)
    try:
        yield
    finally:
        for layer, regularizer in regularized:
            layer.activity_regularizer = regularizer


class _OfRealRows:
    def __init__(self, regularizer: Any, real: tf.Tensor, share: tf.Tensor) -> None:
        self._regularizer = regularizer
        self._real = real
        self._share = share

    def __call__(self, activation: tf.Tensor) -> tf.Tensor:
        if activation.shape.rank == 0 or activation.shape[0] != self._real.shape[0]:
            return self._regularizer(activation)
        real = tf.cast(self._real, activation.dtype)  # whole numbers too have regularizers
        value = self._regularizer(activation * _per_row(real, activation.shape.rank))
        return tf.cast(value, self._share.dtype) / tf.maximum(self._share, 1e-9)


def _per_row(values: tf.Tensor, rank: int) -> tf.Tensor:
    return tf.reshape(values, [-1] + [1] * (rank - 1))
