"""Compiled metrics as states of one batch that add up over batches and devices."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.src.trainers.compile_utils import CompileMetrics

from edgefl.errors import UnsupportedModelError
from edgefl_converters.models.naming import PathNames
from edgefl_converters.training_step.finalising import finalisation_of
from edgefl_converters.training_step.loss_forms import close, is_of_keras, made_up_rows, some_of
from edgefl_converters.training_step.ports import Port
from edgefl_converters.training_step.row_weights import expand, mean_weight, real_rows
from edgefl_converters.training_step.specification import Specification

__all__ = ["BatchMetric", "batch_metrics"]


@dataclass(frozen=True)
class BatchMetric:
    """One compiled metric.

    Attributes:
        name: as Keras reports it.
        metric: the Keras metric; only its stateless update is used.
        output: index of the model output that it looks at.
        weighted: True when it was compiled as one of ``weighted_metrics``.
        finaliser: how summed states become the value.
        settings: what the finaliser needs to know.
        states: names of its states, in the finaliser's order.
        order: the Keras metric's variables, by position, in that order.
        rank: of the weights that it takes.
        together: whether it is computed from all rows of a batch together, so that Keras gives it no row weights.
    """

    name: str
    metric: Any
    output: int
    weighted: bool
    finaliser: str
    settings: Mapping[str, Any]
    states: tuple[str, ...]
    order: tuple[int, ...]
    rank: int
    together: bool = False

    def update(self, target: tf.Tensor, prediction: tf.Tensor, user_weight: tf.Tensor) -> list[tf.Tensor]:
        """The states of one batch, from zeros.

        Args:
            target: what the output should be.
            prediction: the output.
            user_weight: shape ``[B]``, 0 on padding rows, the user's weights elsewhere.
        """
        if self.together:
            weight = mean_weight(user_weight) if self.weighted else None
        else:
            weight = self._of_rows(user_weight if self.weighted else real_rows(user_weight), target)
        zeros = [tf.zeros(variable.shape, variable.dtype) for variable in self.metric.variables]
        updated = self.metric.stateless_update_state(zeros, target, prediction, sample_weight=weight)
        return [tf.convert_to_tensor(updated[index]) for index in self.order]

    def _of_rows(self, weight: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
        if not isinstance(self.metric, keras.metrics.IoU):
            return expand(weight, self.rank)
        # It flattens positions and weights alike, and broadcasts none of them to the others.
        positions = tf.shape(target) if self.metric.sparse_y_true else tf.shape(target)[:-1]
        weight = tf.broadcast_to(expand(weight, len(target.shape) - (not self.metric.sparse_y_true)), positions)
        return tf.cast(weight, tf.int32) if "int" in str(self.metric.dtype) else weight


def batch_metrics(specification: Specification) -> tuple[BatchMetric, ...]:
    """The compiled metrics of a model.

    Raises:
        UnsupportedModelError: a metric is not a function of states that add up.
    """
    compiled = specification.model._compile_metrics
    if compiled is None:
        return ()
    fresh = CompileMetrics(compiled._user_metrics, compiled._user_weighted_metrics, output_names=compiled.output_names)
    prediction = specification.nesting.symbolic_outputs()
    target = specification.nest_targets([port.symbolic for port in specification.targets])
    fresh.build(target, prediction)
    with_target = {port.output for port in specification.targets}
    result = []
    for name, output, metric, weighted in _named(fresh, specification.names):
        if output not in with_target:
            raise UnsupportedModelError(
                f"Metric {name!r} looks at output {specification.outputs[output].name!r}, which has no target.",
                hint="Give that output a loss (with `loss_weights` of 0 it changes no gradient), or remove the metric.",
            )
        _make_variables(metric, specification, output)
        finalisation = finalisation_of(metric)
        if finalisation is None:
            raise UnsupportedModelError(
                f"Metric {name!r} ({type(metric).__name__}) has no value that can be computed from sums over batches "
                "and devices, or it has several.",
                hint="Compile the model with metrics of Keras that have one value, or with a subclass of "
                "keras.metrics.Mean that only overrides update_state.",
            )
        order = tuple(map(_position(metric), finalisation.states or metric.variables))
        states = tuple(f"{name}/{metric.variables[index].name}" for index in order)
        found = BatchMetric(
            name,
            metric,
            output,
            weighted,
            finalisation.finaliser,
            finalisation.settings,
            states,
            order,
            max(1, len(specification.outputs[output].shape) - 1),
        )
        target = next(port for port in specification.targets if port.output == output)
        of_keras = is_of_keras(metric, getattr(metric, "_fn", None))
        result.append(found if of_keras else _tried(found, target, specification.outputs[output]))
    return tuple(result)


def _tried(found: BatchMetric, target: Port, output: Port) -> BatchMetric:
    """A metric of the user's own, after a look at whether it counts rows one by one: padding changes nothing then."""
    function = getattr(found.metric, "_fn", None)
    arrays = made_up_rows(target, output)
    size = len(arrays[0])
    rows = some_of(size)
    if function is not None:
        try:
            values = np.asarray(function(*map(tf.constant, arrays)))
        except Exception:  # tracing meets it again, and says what Keras says
            return found
        if values.shape[:1] != (size,):
            return replace(found, together=True)
        found = replace(found, rank=values.ndim)
    real = (np.arange(size) < rows).astype(np.float32)
    plain = replace(found, weighted=False)

    def states(count: int, weight: Any) -> list[Any]:
        target, prediction = (tf.constant(each[:count]) for each in arrays)
        return [np.asarray(each) for each in plain.update(target, prediction, tf.constant(weight))]

    try:
        padded, alone = states(size, real), states(rows, np.ones(rows, np.float32))
    except Exception:  # of any kind, and not shown to go row by row: on full batches it is right either way
        return replace(found, together=True)
    return replace(found, together=not all(map(close, padded, alone)))


def _make_variables(metric: Any, specification: Specification, output: int) -> None:
    """Some metrics make their variables when they see the first batch."""
    if getattr(metric, "_built", True) or not hasattr(metric, "_build"):
        return
    target = next(port for port in specification.targets if port.output == output)
    shapes = (target.shape, specification.outputs[output].shape)
    metric._build(*shapes[-len(inspect.signature(metric._build).parameters) :])


def _position(metric: Any) -> Callable[[Any], int]:
    positions = {id(variable): index for index, variable in enumerate(metric.variables)}
    return lambda variable: positions[id(variable)]


def _named(compiled: CompileMetrics, names: PathNames) -> Iterator[tuple[str, int, Any, bool]]:
    """Every metric with the name under which Keras reports it, had nothing else been built in this process."""
    counts: dict[str, int] = {}
    groups: Sequence[tuple[bool, Any]] = ((False, compiled._flat_metrics), (True, compiled._flat_weighted_metrics))
    for weighted, flat in groups:
        for output, group in enumerate(flat):
            for metric in group.metrics if group else ():
                prefix = f"{names(group.output_name)}_" if group.output_name else ""
                name = f"{prefix}{metric.name}"
                if weighted and name in counts:
                    name = f"{prefix}weighted_{metric.name}"
                seen = counts.get(name, 0)
                counts[name] = seen + 1
                yield (f"{name}_{seen}" if seen else name), output, metric, weighted
