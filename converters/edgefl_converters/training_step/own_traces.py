"""Traces a model that trains in its own way: its own steps, on full batches as Keras calls them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import keras
import tensorflow as tf

from edgefl.errors import UnsupportedModelError
from edgefl_converters.training_step.learning_rates import learning_rate_of_steps, unscaled
from edgefl_converters.training_step.own_metrics import OwnMetric
from edgefl_converters.training_step.own_step import OwnStep, Ran, apply_of, packed
from edgefl_converters.training_step.row_weights import mean_weight, real_rows
from edgefl_converters.training_step.specification import Specification

__all__ = ["OwnSteps"]

Stage = Callable[[str], AbstractContextManager[Any]]


class OwnSteps:
    """The Python functions that are traced, as `tracing` has them for models that train as Keras does.

    Args:
        specification: of a model that has its own step.
        step: it.
        gradient_prefix: of the names of gradients.
        stage: a name scope that says what ops are for.
    """

    def __init__(self, specification: Specification, step: OwnStep, gradient_prefix: str, stage: Stage) -> None:
        if specification.parts > 1:
            raise UnsupportedModelError(
                f"{step.owner} is called with a batch, which micro-batches would cut into parts.",
                hint="Leave `micro_batch` out; a smaller `batch_size` needs less memory too.",
            )
        self._specification = specification
        self._step = step
        self._gradient_prefix = gradient_prefix
        self._stage = stage

    def train(self, *tensors: tf.Tensor) -> dict[str, tf.Tensor]:
        """One step; returns the loss and the metrics' states."""
        inputs, targets, (weight, rate, *mu, _seed) = self._split(tensors)
        terms, optimizer = self._specification.federated_terms, self._step.lent.optimizer

        def take(gradients: list[Any], variables: list[Any]) -> None:
            with self._stage("optimizer"), learning_rate_of_steps(optimizer, rate[0]), unscaled(optimizer):
                apply_of(optimizer)(terms.added_to(gradients, variables, mu[0][0] if mu else None), variables)

        ran = self._trained(inputs, targets, weight, take)
        return {"loss": ran.loss, **_states(self._step.metrics, ran.logs)}

    def gradient(self, *tensors: tf.Tensor) -> dict[str, tf.Tensor]:
        """The same step, not taken, with the gradients of the shared weights."""
        inputs, targets, (weight, _seed) = self._split(tensors)
        specification, found = self._specification, {}

        def take(gradients: list[Any], variables: list[Any]) -> None:
            found.update({id(variable): gradient for variable, gradient in zip(variables, gradients)})

        ran = self._trained(inputs, targets, weight, take)
        outputs = {"loss": ran.loss, **_states(self._step.metrics, ran.logs)}
        for variable in specification.federated_terms.weights:
            gradient = found.get(id(variable))
            value = tf.zeros(variable.shape) if gradient is None else tf.convert_to_tensor(gradient)
            outputs[f"{self._gradient_prefix}{specification.named.name_of(variable)}"] = value
        return outputs

    def evaluate(self, *tensors: tf.Tensor) -> dict[str, tf.Tensor]:
        """Keras's or its own evaluation; everything that it returns adds up over batches.

        Rows that fill a batch up count like the others in its loss: what it is of some rows alone, only Keras with a
        batch of these could tell.
        """
        inputs, targets, (weight,) = self._split(tensors)
        real = real_rows(weight)
        filled = tf.where(weight > 0.0, weight, mean_weight(weight))
        if self._step.test_packing is None:
            ran = self._trained(inputs, targets, filled, lambda gradients, variables: None)
        else:
            with self._stage("loss"):
                ran = self._step.lent.test(packed(self._step.test_packing, inputs, targets, filled))
        rows = tf.reduce_sum(real)
        return {"loss_sum": ran.loss * rows, "rows": rows, **_states(self._step.metrics, ran.logs)}

    def infer(self, *tensors: tf.Tensor) -> dict[str, tf.Tensor]:
        """The model's outputs."""
        specification = self._specification
        model, inputs = specification.model, specification.nesting.of_inputs(tensors)
        outputs = model(inputs, training=False) if model._call_has_training_arg else model(inputs)
        flat = keras.tree.flatten(outputs)
        return {port.name: tf.identity(each) for port, each in zip(specification.outputs, flat)}

    def _trained(
        self, inputs: Any, targets: Any, weight: tf.Tensor, take: Callable[[list[Any], list[Any]], None]
    ) -> Ran:
        with self._stage("loss"):
            return self._step.lent.train(packed(self._step.packing, inputs, targets, weight), take)

    def _split(self, tensors: Sequence[tf.Tensor]) -> tuple[Any, Any, Sequence[tf.Tensor]]:
        return self._specification.split(tensors)


def _states(metrics: Sequence[OwnMetric], logs: Mapping[str, Any]) -> dict[str, tf.Tensor]:
    states: dict[str, tf.Tensor] = {}
    for metric in metrics:
        states.update(metric.found(logs))
    return states
