"""Compiled metrics as states of one batch that add up over batches and devices."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.src.metrics import reduction_metrics
from keras.src.trainers.compile_utils import CompileMetrics

from edgefl.errors import UnsupportedModelError
from edgefl_converters.models.naming import PathNames
from edgefl_converters.training_step.finalising import Finalisation, finalisations_of
from edgefl_converters.training_step.keras_rewrites.rewriting import rewritten_keras
from edgefl_converters.training_step.loss_forms import close, is_of_keras, made_up_rows, some_of
from edgefl_converters.training_step.ports import Port
from edgefl_converters.training_step.row_weights import expand, mean_weight, real_rows
from edgefl_converters.training_step.specification import Specification

__all__ = ["BatchMetric", "batch_metrics"]


@dataclass(frozen=True)
class BatchMetric:
    """One compiled metric, or an entry of one whose value is a vector.

    Attributes:
        name: as Keras reports it; of an entry with its place, as in ``precision[1]``.
        metric: the Keras metric; only its stateless update is used.
        output: index of the model output that it looks at.
        weighted: True when it was compiled as one of ``weighted_metrics``.
        finalisation: how summed states become the value.
        states: names of its states, in the finaliser's order.
        order: the Keras metric's variables, by position, in that order.
        rank: of the weights that it takes.
        together: whether it is computed from all rows of a batch together, so that Keras gives it no row weights.
    """

    name: str
    metric: Any
    output: int
    weighted: bool
    finalisation: Finalisation
    states: tuple[str, ...]
    order: tuple[int, ...]
    rank: int
    together: bool = False

    @property
    def finaliser(self) -> str:
        """Name of the finaliser."""
        return self.finalisation.finaliser

    @property
    def settings(self) -> Mapping[str, Any]:
        """The settings that the finaliser needs."""
        return self.finalisation.settings

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
            weight = expand(user_weight if self.weighted else real_rows(user_weight), self._weight_rank)
        zeros = [tf.zeros(variable.shape, variable.dtype) for variable in self.metric.variables]
        unweighted = contextlib.nullcontext() if self.weighted else _all_positions_counting()
        with rewritten_keras("weighted_confusions"), unweighted:
            updated = self.metric.stateless_update_state(zeros, target, prediction, sample_weight=weight)
        return [self.finalisation.state(tf.convert_to_tensor(updated[index])) for index in self.order]

    @property
    def _weight_rank(self) -> int:
        return 1 if isinstance(self.metric, keras.metrics.IoU) else self.rank


@contextlib.contextmanager
def _all_positions_counting() -> Iterator[None]:
    """Lets Keras count what a loss ignores, such as the positions of ``ignore_class``, though it is given weights.

    Without weights it counts them, each with a value of 0 (Keras 3.15); the weights here only leave out padding.
    """
    original = reduction_metrics.reduce_to_samplewise_values

    def reduce(values: Any, *others: Any, **named: Any) -> Any:
        return original(tf.identity(values), *others, **named)  # which has no mask

    reduction_metrics.reduce_to_samplewise_values = reduce
    try:
        yield
    finally:
        reduction_metrics.reduce_to_samplewise_values = original


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
        target = next(port for port in specification.targets if port.output == output)
        for finalisation in _finalisations(name, metric):
            order = tuple(map(_position(metric), finalisation.states or metric.variables))
            own_name = finalisation.name(name)
            states = tuple(f"{own_name}/{metric.variables[index].name}" for index in order)
            rank = max(1, len(specification.outputs[output].shape) - 1)
            found = BatchMetric(own_name, metric, output, weighted, finalisation, states, order, rank)
            of_keras = is_of_keras(metric, getattr(metric, "_fn", None))
            result.append(found if of_keras else _tried(found, target, specification.outputs[output]))
    return tuple(result)


def _finalisations(name: str, metric: Any) -> tuple[Finalisation, ...]:
    if found := finalisations_of(metric):
        return found
    raise UnsupportedModelError(
        f"Metric {name!r} ({type(metric).__name__}) has no value that can be computed from sums over batches and "
        "devices.",
        hint="Compile the model with metrics of Keras, or with a subclass of keras.metrics.Mean that only overrides "
        "update_state.",
    )


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
