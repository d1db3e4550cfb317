"""Metrics that a model updates and returns itself in a step, as states of one batch that add up."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from edgefl.errors import UnsupportedModelError
from edgefl_converters.training_step.finalising import finalisations_of

__all__ = ["OwnMetric", "begun", "flat_logs", "noted_results", "own_metric"]

LOSS = "loss"
"""Name of the loss among what a step returns."""


@dataclass(frozen=True)
class OwnMetric:
    """One entry of what a step returns.

    Attributes:
        name: as the step returns it.
        metric: the Keras metric of which it is the result; None for a plain number, of which batches have the mean.
        finaliser: how summed states become the value.
        settings: what the finaliser needs to know.
        states: names of its states, in the finaliser's order.
        order: the metric's variables, by position, in that order.
    """

    name: str
    metric: Any
    finaliser: str
    settings: Mapping[str, Any]
    states: tuple[str, ...]
    order: tuple[int, ...]
    together: bool = True

    def found(self, logs: Mapping[str, Any]) -> dict[str, tf.Tensor]:
        """The states at the end of a step that began from zeros."""
        if self.metric is not None:
            variables = [self.metric.variables[index] for index in self.order]
            return {name: tf.identity(each.value) for name, each in zip(self.states, variables)}
        value = tf.cast(logs[self.name], tf.float32) if self.name in logs else tf.zeros([])
        count = tf.ones([]) if self.name in logs else tf.zeros([])
        return dict(zip(self.states, (value, count)))


def own_metric(owner: str, name: str, value: Any, metric: Any) -> OwnMetric:
    """Describes an entry of what a step returns.

    Args:
        owner: whose step it is, in words.
        name: of the entry.
        value: of it, a tensor.
        metric: the Keras metric that it is the result of, or None.

    Raises:
        UnsupportedModelError: it is not one number, or not one that follows from sums over batches.
    """
    if metric is None:
        if tf.convert_to_tensor(value).shape.rank != 0:
            raise UnsupportedModelError(
                f"{owner} returns {name!r} of shape {tuple(value.shape)}, expected one number.",
                hint="Return the mean of it, or the result of a keras.metrics.Mean.",
            )
        return OwnMetric(name, None, "mean", {}, (f"{name}/total", f"{name}/count"), ())
    finalisations = finalisations_of(metric)
    if len(finalisations) != 1:
        raise UnsupportedModelError(
            f"Metric {name!r} ({type(metric).__name__}) of {owner} has no value that can be computed from sums over "
            "batches and devices, or it has several.",
            hint="Keep metrics of Keras that have one value, such as keras.metrics.Mean.",
        )
    (finalisation,) = finalisations
    places = {id(variable): index for index, variable in enumerate(metric.variables)}
    order = tuple(places[id(each)] for each in finalisation.states or metric.variables)
    states = tuple(f"{name}/{metric.variables[index].name}" for index in order)
    return OwnMetric(name, metric, finalisation.finaliser, finalisation.settings, states, order)


def begun(metrics: Sequence[Any]) -> None:
    """Sets metrics to zero, in the graph that is being traced too."""
    for metric in metrics:
        for variable in metric.variables:
            variable.assign(keras.ops.zeros(variable.shape, variable.dtype))


def flat_logs(returned: Any) -> dict[str, Any]:
    """Returns what a step returned, with the entries of nested dictionaries at the top, as Keras reports them."""
    flat: dict[str, Any] = {}
    for name, value in returned.items() if isinstance(returned, Mapping) else ():
        flat.update(flat_logs(value) if isinstance(value, Mapping) else {str(name): value})
    return flat


@contextlib.contextmanager
def noted_results(metrics: Sequence[Any]) -> Iterator[dict[int, Any]]:
    """Notes of which metric a tensor is the result: identity of the tensor to the metric."""
    results: dict[int, Any] = {}
    kept = []  # so that no other tensor gets the identity of one that is gone

    def noting(metric: Any) -> Any:
        original = metric.result

        def result() -> Any:
            value = original()
            kept.append(value)
            results[id(value)] = metric
            return value

        return result

    single = [each for each in metrics if not getattr(each, "metrics", None)]
    for metric in single:
        vars(metric)["result"] = noting(metric)
    try:
        yield results
    finally:
        for metric in single:
            del vars(metric)["result"]
