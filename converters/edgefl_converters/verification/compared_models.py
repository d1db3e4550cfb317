"""A Keras model that takes Keras's own steps beside a model file: a copy, or the model itself with what it is lent."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import keras
import tensorflow as tf

from edgefl.errors import UnsupportedModelError, first_line
from edgefl_converters.training_step.learning_rates import learning_rate_of_steps
from edgefl_converters.training_step.loss_forms import LossForm
from edgefl_converters.training_step.own_metrics import begun, flat_logs
from edgefl_converters.training_step.own_step import Lent, packed
from edgefl_converters.training_step.ports import Port
from edgefl_converters.training_step.rebuilding import rebuild
from edgefl_converters.training_step.row_weights import expand, mean_weight
from edgefl_converters.training_step.specification import Specification, inner_optimizer
from edgefl_converters.training_step.variables import present_value
from edgefl_converters.verification.federated_losses import FederatedLoss

__all__ = ["OUTPUT", "ComparedModel", "compared_model"]

OUTPUT = "output/"
"""Prefix of what an evaluation may return beside logs: the model's outputs, in order."""

Logs = dict[str, Any]


class ComparedModel(Protocol):
    """A model with the steps that are compared, as functions to be traced.

    Attributes:
        model: the Keras model.
        optimizer: that steps are taken with.
    """

    model: Any
    optimizer: Any

    def train(self, inputs: Any, targets: Any, weight: tf.Tensor, rate: Any, federated: FederatedLoss) -> Logs:
        """Takes a step; returns what Keras reports."""
        ...

    def test(self, inputs: Any, targets: Any, weight: tf.Tensor) -> Logs:
        """Evaluates; returns what Keras reports, and, of a copy, the model's outputs by `OUTPUT` and their number."""
        ...

    def gradient(self, inputs: Any, targets: Any, weight: tf.Tensor, weights: Sequence[Any]) -> list[tf.Tensor]:
        """The gradient of the loss with respect to some of the model's weights."""
        ...

    def close(self) -> None:
        """Leaves the original as it was."""
        ...


def compared_model(specification: Specification, dtype: str, *, weighted: bool) -> ComparedModel:
    """A copy of a model; in float32 the model itself where Keras cannot copy it, or where it trains in its own way.

    Raises:
        UnsupportedModelError: there is none in this type.
    """
    step = specification.own_step
    if step is not None:
        if dtype != "float32":
            raise UnsupportedModelError(f"{step.owner} is followed in the model itself, which is in float32")
        return _Original(specification, weighted=weighted)
    try:
        return _Copy(specification, dtype, weighted=weighted)
    except Exception as error:  # of any kind, Keras's or the user's
        if dtype == "float32":
            return _Original(specification, weighted=weighted)
        raise UnsupportedModelError(f"Keras cannot rebuild the model in {dtype}: {first_line(error)}") from error


class _Copy:
    def __init__(self, specification: Specification, dtype: str, *, weighted: bool) -> None:
        self._specification, self._dtype, self._weighted = specification, dtype, weighted
        self.model = rebuild(specification, dtype)
        self._compile(specification.model)
        self.optimizer = self.model.optimizer

    def train(self, inputs: Any, targets: Any, weight: tf.Tensor, rate: Any, federated: FederatedLoss) -> Logs:
        self.model.reset_metrics()
        with learning_rate_of_steps(self.optimizer, rate), federated.in_loss_of(self.model):
            return dict(self.model.train_step((inputs, targets, self._weights(weight))))

    def test(self, inputs: Any, targets: Any, weight: tf.Tensor) -> Logs:
        self.model.reset_metrics()
        with self._seen_outputs() as seen:
            logs = dict(self.model.test_step((inputs, targets, self._weights(weight))))
        return {**logs, **{f"{OUTPUT}{index:06d}": tf.identity(each) for index, each in enumerate(seen)}}

    @contextlib.contextmanager
    def _seen_outputs(self) -> Iterator[list[Any]]:
        """Gives a list that is filled with what the model's loss is computed of."""
        seen: list[Any] = []
        compute_loss = self.model._compute_loss

        def noting(x: Any = None, y: Any = None, y_pred: Any = None, *others: Any, **settings: Any) -> Any:
            seen.extend(keras.tree.flatten(y_pred))
            return compute_loss(x, y, y_pred, *others, **settings)

        vars(self.model)["_compute_loss"] = noting
        try:
            yield seen
        finally:
            del vars(self.model)["_compute_loss"]

    def gradient(self, inputs: Any, targets: Any, weight: tf.Tensor, weights: Sequence[Any]) -> list[tf.Tensor]:
        model = self.model
        with tf.GradientTape() as tape:
            predictions = model(inputs, training=True) if model._call_has_training_arg else model(inputs)
            loss = model._compute_loss(inputs, targets, predictions, sample_weight=self._weights(weight), training=True)
        values = [variable.value for variable in weights]
        gradients = tape.gradient(loss, values, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return list(map(tf.convert_to_tensor, gradients))

    def close(self) -> None:
        pass

    def _weights(self, weight: tf.Tensor) -> Any:
        return row_weights(self._specification, weight) if self._weighted else None

    def _compile(self, original: Any) -> None:
        compiled = inner_optimizer(original.optimizer)
        optimizer = type(compiled).from_config(compiled.get_config())
        loss, metrics = original._compile_loss, original._compile_metrics
        self.model.compile(
            optimizer=optimizer,
            loss=None if loss is None else keras.tree.map_structure(_fresh, loss._user_loss),
            loss_weights=None if loss is None else loss._user_loss_weights,
            metrics=None if metrics is None else keras.tree.map_structure(_fresh, metrics._user_metrics),
            weighted_metrics=None
            if metrics is None
            else keras.tree.map_structure(_fresh, metrics._user_weighted_metrics),
            jit_compile=False,
        )
        optimizer.build(self.model.trainable_variables)
        self._build_loss_and_metrics()

    def _build_loss_and_metrics(self) -> None:
        """Makes the variables of losses and metrics now: a function that makes some is traced twice."""
        specification = self._specification
        predictions = keras.tree.pack_sequence_as(
            specification.nesting.output_structure, [self._symbolic(port) for port in specification.outputs]
        )
        targets = specification.nest_targets([self._symbolic(port) for port in specification.targets])
        for each in (self.model._compile_loss, self.model._compile_metrics):
            if each is not None:
                each.build(targets, predictions)

    def _symbolic(self, port: Port) -> keras.KerasTensor:
        dtype = self._dtype if port.dtype == "float32" else port.dtype
        return keras.KerasTensor((None, *port.shape[1:]), dtype)


class _Original:
    """The model itself, whose variables are put back afterwards."""

    def __init__(self, specification: Specification, *, weighted: bool) -> None:
        self._specification, self._weighted = specification, weighted
        self.model = model = specification.model
        compiled = inner_optimizer(model.optimizer)
        self.optimizer = type(compiled).from_config(compiled.get_config())
        self.optimizer.build(model.trainable_variables)
        targets = specification.nest_targets([port.symbolic for port in specification.targets])
        self._lent = Lent(model, self.optimizer, targets, specification.nesting.symbolic_outputs())
        changed = [*model.variables, *(each for metric in self._lent.metrics for each in metric.variables)]
        self._before = [(variable, present_value(variable.value)) for variable in changed]

    def train(self, inputs: Any, targets: Any, weight: tf.Tensor, rate: Any, federated: FederatedLoss) -> Logs:
        step = self._specification.own_step
        packing = "xyw" if step is None else step.packing
        with learning_rate_of_steps(self.optimizer, rate), federated.in_steps_of(self.optimizer):
            return self._ran(self.model.train_step, packing, inputs, targets, weight)

    def test(self, inputs: Any, targets: Any, weight: tf.Tensor) -> Logs:
        step = self._specification.own_step
        packing = "xyw" if step is None else step.test_packing
        if packing is not None:
            return self._ran(self.model.test_step, packing, inputs, targets, weight)
        assert step is not None
        with _untaken(self.optimizer):
            return self._ran(self.model.train_step, step.packing, inputs, targets, weight)

    def gradient(self, inputs: Any, targets: Any, weight: tf.Tensor, weights: Sequence[Any]) -> list[tf.Tensor]:
        step = self._specification.own_step
        packing = "xyw" if step is None else step.packing
        with _untaken(self.optimizer) as found:
            self._ran(self.model.train_step, packing, inputs, targets, weight)
        scale = self.optimizer.loss_scale_factor or 1.0
        gradients = [found.get(id(variable)) for variable in weights]
        return [
            tf.zeros(variable.shape) if each is None else tf.convert_to_tensor(each) / scale
            for variable, each in zip(weights, gradients)
        ]

    def close(self) -> None:
        for variable, value in self._before:
            variable.assign(value)

    def _ran(self, step: Any, packing: str, inputs: Any, targets: Any, weight: tf.Tensor) -> Logs:
        weights: Any = weight
        if self._specification.own_step is None:
            weights = row_weights(self._specification, weight) if self._weighted else None
        with self._lent.used():
            begun(self._lent.metrics)
            return flat_logs(step(packed(packing, inputs, targets, weights)))


@contextlib.contextmanager
def _untaken(optimizer: Any) -> Iterator[dict[int, Any]]:
    """Lets an optimizer note gradients, by the identity of their variables, instead of taking a step."""
    found: dict[int, Any] = {}

    def apply(gradients: Sequence[Any], variables: Sequence[Any] | None = None) -> None:
        known = optimizer._trainable_variables if variables is None else variables
        found.update((id(variable), gradient) for variable, gradient in zip(known, gradients))

    vars(optimizer)["apply"] = apply
    try:
        yield found
    finally:
        del vars(optimizer)["apply"]


def row_weights(specification: Specification, weight: tf.Tensor) -> Any:
    """Weights of rows as Keras is given them: of the rank of what they multiply, or they would broadcast otherwise."""
    return specification.nest_targets([_weight_of(loss, weight) for loss in specification.losses])


def _weight_of(loss: LossForm, weight: tf.Tensor) -> tf.Tensor | None:
    """The factor that Keras multiplies a loss with: the weights of rows; of a batch that has one value, their mean."""
    if loss.rank:
        return expand(weight, loss.rank)
    return None if loss.own_call else mean_weight(weight)


def _fresh(compiled: Any) -> Any:
    """A loss or metric anew, so that it computes in the present float type and shares no state with the original."""
    if isinstance(compiled, keras.losses.Loss):
        # Not by its configuration, which lacks settings: the delta of Huber (Keras 3.15).
        fresh = object.__new__(type(compiled))
        fresh.__dict__.update(vars(compiled))
        fresh._dtype_policy = keras.dtype_policies.get(keras.config.floatx())
        fresh._dtype = fresh._dtype_policy.compute_dtype
        return fresh
    if isinstance(compiled, keras.metrics.Metric):
        function = getattr(compiled, "_fn", None)
        own = {type(compiled).__name__: type(compiled), getattr(function, "__name__", ""): function}
        config = {name: value for name, value in compiled.get_config().items() if name != "dtype"}
        with keras.saving.custom_object_scope(own):
            fresh = type(compiled).from_config(config)
        if function is not None:
            # Its configuration may lack arguments: the axis of CosineSimilarity (Keras 3.15).
            fresh._fn_kwargs = dict(compiled._fn_kwargs)
        return fresh
    return compiled
