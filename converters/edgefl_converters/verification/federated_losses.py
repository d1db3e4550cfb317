"""Makes what federated algorithms add to the loss, where a model file adds its gradient to the gradient."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

__all__ = ["FederatedLoss"]


class FederatedLoss:
    """``mu / 2 |w - reference|² + correction · w``, of some weights of a Keras model.

    Args:
        weights: Keras's variables by name; empty where no algorithm is asked for.
        dtype: what the model computes in.
    """

    def __init__(self, weights: Mapping[str, Any], dtype: str) -> None:
        self._weights = dict(weights)
        self._dtype = dtype
        self._mu = tf.Variable(0.0, dtype=dtype, trainable=False)
        self._references = {name: tf.Variable(each.value, trainable=False) for name, each in weights.items()}
        self._corrections = {
            name: tf.Variable(tf.zeros_like(each.value), trainable=False) for name, each in weights.items()
        }

    def set(self, mu: float, correction: Mapping[str, NDArray[Any]]) -> None:
        """Makes the present weights the reference."""
        self._mu.assign(mu)
        for name, weight in self._weights.items():
            self._references[name].assign(weight.value)
            self._corrections[name].assign(np.asarray(correction.get(name, np.zeros(weight.shape)), self._dtype))

    @contextlib.contextmanager
    def in_loss_of(self, model: Any) -> Iterator[None]:
        """Adds it to the loss that Keras computes."""
        if not self._weights:
            yield
            return
        own = model._compute_loss
        model._compute_loss = lambda *args, **kwargs: own(*args, **kwargs) + self._value()
        try:
            yield
        finally:
            del model._compute_loss

    @contextlib.contextmanager
    def in_steps_of(self, optimizer: Any) -> Iterator[None]:
        """Adds its gradient to those that an optimizer applies, where the loss itself cannot be reached."""
        if not self._weights:
            yield
            return
        places = {id(weight): name for name, weight in self._weights.items()}

        def apply(gradients: Sequence[Any], variables: Sequence[Any] | None = None) -> None:
            known = list(optimizer._trainable_variables if variables is None else variables)
            scale = optimizer.loss_scale_factor or 1.0
            added = [
                gradient
                if gradient is None or id(variable) not in places
                else tf.convert_to_tensor(gradient) + scale * self._gradient(places[id(variable)])
                for gradient, variable in zip(gradients, known)
            ]
            type(optimizer).apply(optimizer, added, known)

        vars(optimizer)["apply"] = apply
        try:
            yield
        finally:
            del vars(optimizer)["apply"]

    def _gradient(self, name: str) -> tf.Tensor:
        return self._mu * (self._weights[name].value - self._references[name]) + self._corrections[name]

    def _value(self) -> tf.Tensor:
        terms = []
        for name, weight in self._weights.items():
            distance = weight.value - self._references[name]
            terms.append(self._mu / 2 * tf.reduce_sum(tf.square(distance)))
            terms.append(tf.reduce_sum(self._corrections[name] * weight.value))
        return tf.add_n(terms)
