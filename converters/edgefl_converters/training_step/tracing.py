"""Leads from a compiled Keras model to the TensorFlow graphs of its training step, evaluation and inference."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import keras
import tensorflow as tf

from edgefl.errors import EdgeflError, ModelError, first_line
from edgefl_converters.models.added_losses import added_losses
from edgefl_converters.training_step.batch_metrics import BatchMetric, batch_metrics
from edgefl_converters.training_step.compiled_losses import at, compiled_losses
from edgefl_converters.training_step.keras_rewrites.rewriting import rewritten_keras
from edgefl_converters.training_step.learning_rates import learning_rate_of_steps, unscaled
from edgefl_converters.training_step.lookups import Lookup, lookups
from edgefl_converters.training_step.makers import attributed, stage_scope
from edgefl_converters.training_step.own_metrics import OwnMetric
from edgefl_converters.training_step.own_traces import OwnSteps
from edgefl_converters.training_step.ports import Port
from edgefl_converters.training_step.row_weights import (
    CountedPositions,
    RowWeightedLoss,
    activity_of_real_rows,
    real_rows,
    reduced,
)
from edgefl_converters.training_step.specification import Specification, as_raised
from edgefl_converters.training_step.traced_graphs import assigned_inputs

__all__ = ["BATCH_WEIGHT", "GRADIENT", "INDICES", "POSITIONS", "Trace", "Traces", "trace"]

BATCH_WEIGHT = "batch_weight"
"""Input of what is traced for a part of a batch: the row weights of all of it."""
POSITIONS = "positions"
"""Input and output: what losses of masked positions divide a whole batch by, see `CountedPositions`."""
GRADIENT, INDICES = "gradient/", "gradient indices/"
"""Prefixes of outputs: the gradient of a variable; where it is one of looked-up rows, their indices."""
_OUTPUT = "output/"
"""Prefix of what an evaluation returns beside its results: the outputs of the model."""
_EXTRA = ("sample_weight", "learning_rate", "mu", "seed", BATCH_WEIGHT)


@dataclass(frozen=True)
class Trace:
    """One traced function.

    Attributes:
        graph: its ops, over the variables of the Keras model and the fresh optimizer.
        inputs: what its explicit inputs are, in order.
        outputs: names of its outputs, in order.
        results: the graph's tensors for them.
    """

    graph: Any
    inputs: tuple[Port, ...]
    outputs: tuple[str, ...]
    results: tuple[tf.Tensor, ...]

    def is_sparse(self, output: str) -> bool:
        """Tells whether an output belongs to the gradient of looked-up rows."""
        kind, _, variable = output.partition("/")
        return f"{kind}/" in (GRADIENT, INDICES) and f"{INDICES}{variable}" in self.outputs


@dataclass(frozen=True)
class Traces:
    """The functions that come from Keras; those that only move variables are made when the file is assembled.

    Attributes:
        functions: ``train``, ``evaluate``, ``infer``, and ``gradient`` where an algorithm asks for it.
        metrics: the compiled metrics, whose states are outputs of ``train`` and ``evaluate``.
        layers: the model's layers; an index into it is part of the name of every op that a layer made.
        of_whole_batches: what is computed from all rows of a batch together, in words: losses and metrics.
        parts: where a batch is cut into micro-batches, what happens to one of them: ``train`` (up to the gradient of
            every variable) and the others; ``update``, what happens to the sum of the gradients; and before all parts
            ``positions``, where a loss is divided by what is not masked.
        lookups: what Embedding layers were called with.
    """

    functions: Mapping[str, Trace]
    metrics: tuple[BatchMetric | OwnMetric, ...]
    layers: tuple[Any, ...]
    of_whole_batches: tuple[str, ...] = ()
    parts: Mapping[str, Trace] = field(default_factory=dict)
    lookups: Sequence[Lookup] = ()


def trace(specification: Specification) -> Traces:
    """Traces what Keras does in a training step, an evaluation step and a prediction.

    Raises:
        ModelError: the model fails on inputs of its own shapes, or its outputs do not fit the loss.
    """
    layers = tuple(specification.model._flatten_layers())
    own = specification.own_step
    compiled = batch_metrics(specification) if own is None else ()
    metrics = compiled if own is None else own.metrics
    steps = _Steps(specification, compiled) if own is None else OwnSteps(specification, own, GRADIENT, stage_scope)
    batch = specification.batch_size
    weights = Port("sample_weight", (batch,), "float32")
    rate, mu = Port("learning_rate", (1,), "float32"), Port("mu", (1,), "float32")
    seed = Port("seed", (1,), "int32")
    data = (*specification.inputs, *specification.targets)
    settings = (rate, mu) if specification.federated_terms.proximal else (rate,)
    parts = {}
    with attributed(layers), rewritten_keras(), added_losses() as added, lookups() as looked_up:
        functions = {
            "train": _trace_one("train", steps.train, (*data, weights, *settings, seed)),
            **_trace_forward(steps, steps.evaluate, (*data, weights), specification.inputs),
        }
        if specification.federated_terms.gradient:
            functions["gradient"] = _trace_one("gradient", steps.gradient, (*data, weights, seed))
        if specification.parts > 1:
            of_part = _Steps(specification, compiled, specification.parts)
            rows = tuple(_of_part(specification, port) for port in (*data, weights))
            whole: tuple[Port, ...] = (replace(weights, name=BATCH_WEIGHT),)
            counted = _trace_one("loss", of_part.positions, (*data, weights))
            if counted.outputs:
                parts[POSITIONS] = counted
                whole = (*whole, Port(POSITIONS, tuple(counted.results[0].shape), "float32"))
            parts["train"] = _trace_one("train", of_part.gradient_part, (*rows, *whole, seed))
            inputs = rows[: len(specification.inputs)]
            parts.update(_trace_forward(of_part, of_part.evaluate_part, (*rows, *whole), inputs))
            if specification.federated_terms.gradient:
                dense = functools.partial(of_part.gradient_part, sparse=False)
                parts["gradient"] = _trace_one("gradient", dense, (*rows, *whole, seed))
            found = tuple(_gradients_found(parts["train"], specification.parts))
            update = functools.partial(of_part.update, [port.name for port in found])
            parts["update"] = _trace_one("train", update, (*found, *settings))
    together = tuple(_of_whole_batches(specification, metrics, added.layers))
    return Traces(functions, metrics, layers, together, parts, looked_up)


def _of_whole_batches(
    specification: Specification, metrics: Sequence[BatchMetric | OwnMetric], adding: Sequence[Any]
) -> Iterator[str]:
    if specification.own_step is not None:
        yield specification.own_step.owner
        return
    yield from (f"the loss {each.name!r}" for each in specification.losses if each.together)
    named = specification.names
    yield from (f"what layer {named(each.name)!r} ({type(each).__name__}) adds to the loss" for each in adding)
    yield from (f"the metric {each.name!r}" for each in metrics if each.together)


def _of_part(specification: Specification, port: Port) -> Port:
    return replace(port, shape=(specification.batch_size // specification.parts, *port.shape[1:]))


def _gradients_found(part: Trace, parts: int) -> Iterator[Port]:
    """Returns what the parts of a batch give of its gradient, those of looked-up rows one after the other."""
    for name, tensor in zip(part.outputs, part.results):
        if name.startswith((GRADIENT, INDICES)):
            rows, *others = tensor.shape.as_list() or [0]
            shape = (rows * parts, *others) if part.is_sparse(name) else tuple(tensor.shape)
            yield Port(name, shape, tensor.dtype.name)


def _trace_one(name: str, step: Callable[..., dict[str, tf.Tensor]], inputs: Sequence[Port]) -> Trace:
    specs = [tf.TensorSpec(port.shape, port.dtype, name=f"input_{index}") for index, port in enumerate(inputs)]
    try:
        function = tf.function(step, autograph=False).get_concrete_function(*specs)
    except EdgeflError as error:
        raise as_raised(error) from None
    except Exception as error:
        raise ModelError(
            f"Keras cannot run the model's {name} step: {first_line(error).rstrip('.')}.",
            hint="Its inputs and targets are "
            + ", ".join(f"{port.name} {port.dtype} {port.shape}" for port in inputs if port.name not in _EXTRA)
            + "; check that the output fits the loss and the metrics.",
        ) from error
    outputs = tuple(function.structured_outputs)
    results = tf.nest.flatten(function.graph.structured_outputs, expand_composites=True)
    # A dictionary is flattened by sorted keys.
    by_name = dict(zip(sorted(outputs), results))
    return Trace(function.graph, tuple(inputs), outputs, tuple(by_name[output] for output in outputs))


def _trace_forward(
    steps: _Steps | OwnSteps,
    evaluate: Callable[..., dict[str, tf.Tensor]],
    given: Sequence[Port],
    inputs: Sequence[Port],
) -> dict[str, Trace]:
    """Traces an evaluation and a prediction as one graph, as both run the same layers; else as two.

    Args:
        steps: what is traced.
        evaluate: what of it evaluates.
        given: what that takes: the model's inputs first.
        inputs: of the model.
    """
    if isinstance(steps, OwnSteps):
        return {"evaluate": _trace_one("evaluate", evaluate, given), "infer": _trace_one("infer", steps.infer, inputs)}
    both = _trace_one("evaluate", evaluate, given)
    own, of_model = (
        [(name, tensor) for name, tensor in zip(both.outputs, both.results) if name.startswith(_OUTPUT) is wanted]
        for wanted in (False, True)
    )
    evaluation = Trace(both.graph, both.inputs, *_columns(own))
    if assigned_inputs(both.graph, both.results):  # by whom, cannot be told
        return {"evaluate": evaluation, "infer": _trace_one("infer", steps.infer, inputs)}
    outputs, results = _columns([(name.removeprefix(_OUTPUT), tensor) for name, tensor in of_model])
    return {"evaluate": evaluation, "infer": Trace(both.graph, tuple(inputs), outputs, results)}


def _columns(named: Sequence[tuple[str, tf.Tensor]]) -> tuple[tuple[str, ...], tuple[tf.Tensor, ...]]:
    return tuple(name for name, _ in named), tuple(tensor for _, tensor in named)


class _Steps:
    """The Python functions that are traced.

    What those for one of several equal parts of a batch return adds up to what the batch gives: its loss, its gradient,
    the metrics' states.
    """

    def __init__(self, specification: Specification, metrics: Sequence[BatchMetric], parts: int = 1) -> None:
        self._specification = specification
        self._metrics = metrics
        self._parts = parts
        self._compile_loss = compiled_losses(specification, functools.partial(RowWeightedLoss, parts=parts))
        self._counting = compiled_losses(specification, CountedPositions) if parts > 1 else None
        self._layers = tuple(specification.model._flatten_layers())

    def train(self, *tensors: tf.Tensor) -> dict[str, tf.Tensor]:
        """Forward, loss, gradient, optimizer; returns the loss and the metrics' states."""
        inputs, targets, (weight, rate, *mu, _seed) = self._specification.split(tensors)
        outputs, gradients = self._gradients(inputs, targets, weight, weight)
        self._apply(gradients, rate, mu)
        return outputs

    def _apply(self, gradients: Sequence[Any], rate: tf.Tensor, mu: Sequence[tf.Tensor]) -> None:
        specification = self._specification
        variables, optimizer = specification.model.trainable_variables, specification.optimizer
        with learning_rate_of_steps(optimizer, rate[0]), unscaled(optimizer), stage_scope("optimizer"):
            gradients = specification.federated_terms.added_to(gradients, variables, mu[0][0] if mu else None)
            optimizer.apply(gradients, variables)

    def update(self, given: Sequence[str], *tensors: tf.Tensor) -> dict[str, tf.Tensor]:
        """Computes what follows the gradient in a training step; ``given`` names what there is of `gradient_part`."""
        found = dict(zip(given, tensors))
        rate, *mu = tensors[len(given) :]
        gradients = []
        for name, variable in zip(self._variable_names(), self._specification.model.trainable_variables):
            values, indices = found.get(f"{GRADIENT}{name}"), found.get(f"{INDICES}{name}")
            gradients.append(values if indices is None else tf.IndexedSlices(values, indices, tuple(variable.shape)))
        self._apply(gradients, rate, mu)
        return {}

    def _variable_names(self) -> list[str]:
        return list(map(self._specification.named.name_of, self._specification.model.trainable_variables))

    def gradient_part(self, *tensors: tf.Tensor, sparse: bool = True) -> dict[str, tf.Tensor]:
        """Computes what a part of a batch adds to the loss, the metrics' states and the gradients, if there is one.

        The gradient of looking up rows of a table stays ``sparse``, rows and their indices: optimizers square each row
        by itself, even where one is looked up twice.
        """
        inputs, targets, (weight, whole, *positions, _seed) = self._specification.split(tensors)
        self._set_positions(positions)
        outputs, gradients = self._gradients(inputs, targets, weight, whole)
        for name, gradient in zip(self._variable_names(), gradients):
            if sparse and isinstance(gradient, tf.IndexedSlices):
                outputs[f"{GRADIENT}{name}"], outputs[f"{INDICES}{name}"] = gradient.values, gradient.indices
            elif gradient is not None:
                outputs[f"{GRADIENT}{name}"] = tf.convert_to_tensor(gradient)
        return outputs

    def gradient(self, *tensors: tf.Tensor) -> dict[str, tf.Tensor]:
        """Like a training step, but returns the gradients of the shared weights and moves nothing."""
        specification = self._specification
        inputs, targets, (weight, _seed) = self._specification.split(tensors)
        outputs, gradients = self._gradients(inputs, targets, weight, weight)
        shared = {id(each) for each in specification.federated_terms.weights}
        for variable, gradient in zip(specification.model.trainable_variables, gradients):
            if id(variable) in shared:
                value = tf.zeros(variable.shape) if gradient is None else tf.convert_to_tensor(gradient)
                outputs[f"{GRADIENT}{specification.named.name_of(variable)}"] = value
        return outputs

    def _gradients(
        self, inputs: Any, targets: Any, weight: tf.Tensor, whole: tf.Tensor
    ) -> tuple[dict[str, tf.Tensor], list[Any]]:
        """Loss and metrics of rows in training, and the gradient of each trainable variable.

        Both ``weight`` of the rows and that of the ``whole`` batch are scaled by B / n.
        """
        model = self._specification.model
        variables = [variable.value for variable in model.trainable_variables]
        with tf.GradientTape() as tape:
            # Keras tells TensorFlow of a variable's trainability only once, when it is made.
            tape.watch(variables)
            with activity_of_real_rows(self._layers, weight, whole):
                predictions = _call(model, inputs, training=True)
            with stage_scope("loss"):
                total, loss = self._loss(inputs, targets, predictions, weight, whole, training=True)
        gradients = tape.gradient(total, variables)
        if all(gradient is None for gradient in gradients):
            raise ModelError(
                "The loss does not depend on any trainable weight.", hint="Check that the output uses the layers."
            )
        with stage_scope("metrics"):
            user_weight = weight * tf.reduce_mean(real_rows(whole))
        return {"loss": loss, **self._states(targets, predictions, user_weight)}, gradients

    def evaluate(self, *tensors: tf.Tensor) -> dict[str, tf.Tensor]:
        """Forward and loss; all that it returns adds up over batches, but for the outputs of the model."""
        inputs, targets, (weight,) = self._specification.split(tensors)
        return self._evaluate(inputs, targets, weight, weight)

    def evaluate_part(self, *tensors: tf.Tensor) -> dict[str, tf.Tensor]:
        """Computes what a part of a batch adds to what `evaluate` returns."""
        inputs, targets, (weight, whole, *positions) = self._specification.split(tensors)
        self._set_positions(positions)
        return self._evaluate(inputs, targets, weight, whole)

    def positions(self, *tensors: tf.Tensor) -> dict[str, tf.Tensor]:
        """Counts what losses of masked positions divide by, float32 ``[losses]``, 1 for the others; or nothing."""
        inputs, targets, (weight,) = self._specification.split(tensors)
        if self._counting is None:
            return {}
        self._counting(targets, _call(self._specification.model, inputs, training=False), weight)
        found = [each.loss.found for each in self._counting._flat_losses]
        if all(each is None for each in found):
            return {}
        return {POSITIONS: tf.stack([tf.ones(()) if each is None else each for each in found])}

    def _set_positions(self, positions: Sequence[tf.Tensor]) -> None:
        for index, each in enumerate(self._compile_loss._flat_losses if self._compile_loss and positions else ()):
            each.loss.batch_positions = positions[0][index]

    def _evaluate(self, inputs: Any, targets: Any, weight: tf.Tensor, whole: tf.Tensor) -> dict[str, tf.Tensor]:
        with activity_of_real_rows(self._layers, weight, whole):
            predictions = _call(self._specification.model, inputs, training=False)
        with stage_scope("loss"):
            rows = tf.reduce_sum(real_rows(whole))
            scale = float(self._specification.batch_size) / tf.maximum(rows, 1.0)
            _, loss = self._loss(inputs, targets, predictions, weight * scale, whole * scale, training=False)
            own_rows = tf.reduce_sum(real_rows(weight))
        outputs = {f"{_OUTPUT}{name}": tensor for name, tensor in self._named(predictions).items()}
        return {"loss_sum": loss * rows, "rows": own_rows, **self._states(targets, predictions, weight), **outputs}

    def infer(self, *tensors: tf.Tensor) -> dict[str, tf.Tensor]:
        """The model's outputs."""
        predictions = _call(self._specification.model, self._specification.nesting.of_inputs(tensors), training=False)
        return self._named(predictions)

    def _named(self, predictions: Any) -> dict[str, tf.Tensor]:
        flat = keras.tree.flatten(predictions)
        return {port.name: tf.identity(each) for port, each in zip(self._specification.outputs, flat)}

    def _loss(
        self, inputs: Any, targets: Any, predictions: Any, weight: tf.Tensor, whole: tf.Tensor, training: bool
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """The loss as what its gradient is taken of, and as what is reported."""
        model = self._specification.model
        compiled = model._compile_loss
        model._compile_loss = self._compile_loss
        for each in self._compile_loss._flat_losses if self._compile_loss is not None else ():
            each.loss.batch_weight = whole
        try:
            loss = model._compute_loss(inputs, targets, predictions, sample_weight=weight, training=training)
        finally:
            model._compile_loss = compiled
        total, reported = reduced(loss, whole)
        return (total, reported) if self._parts == 1 else (total / float(self._parts), reported / float(self._parts))

    def _states(self, targets: Any, predictions: Any, user_weight: tf.Tensor) -> dict[str, tf.Tensor]:
        structure = self._specification.nesting.output_structure
        flat_predictions = keras.tree.flatten(predictions)
        flat_targets = [targets] if not keras.tree.is_nested(structure) else _flatten_up_to(structure, targets)
        states: dict[str, tf.Tensor] = {}
        with stage_scope("metrics"):
            for metric in self._metrics:
                values = metric.update(flat_targets[metric.output], flat_predictions[metric.output], user_weight)
                states.update(zip(metric.states, values))
        return states


def _call(model: Any, inputs: Any, *, training: bool) -> Any:
    return model(inputs, training=training) if model._call_has_training_arg else model(inputs)


def _flatten_up_to(structure: Any, targets: Any) -> list[Any]:
    paths = [path for path, _ in keras.tree.flatten_with_path(structure)]
    return [at(path, targets) for path in paths]
