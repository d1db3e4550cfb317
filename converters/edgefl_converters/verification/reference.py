"""A copy of a Keras model that takes Keras's own training steps in TensorFlow, in float32 or float64."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from edgefl.errors import UnsupportedModelError, first_line
from edgefl_converters.models.naming import slot_name, unique
from edgefl_converters.training_step.learning_rates import learning_rate_of_steps
from edgefl_converters.training_step.rebuilding import rebuild
from edgefl_converters.training_step.row_weights import expand
from edgefl_converters.training_step.specification import Port, Specification, unscaled
from edgefl_converters.verification.federated_losses import FederatedLoss
from edgefl_converters.verification.made_up_batches import Batch
from edgefl_converters.verification.seeded_random_ops import hashed_random_numbers

__all__ = ["Reference", "Snapshot"]

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Snapshot:
    """Holds what training has made of a model.

    Attributes:
        variables: every variable of the model by its stable name.
        slots: every variable of the optimizer, named as the model file names its state.
    """

    variables: Arrays
    slots: Arrays


class Reference:
    """A model to compare with.

    Args:
        specification: of the original model, which is left as it is.
        dtype: ``float32`` or ``float64``: what the copy computes in.

    Raises:
        UnsupportedModelError: Keras cannot rebuild the model from its own configuration, or not in this type.
    """

    def __init__(self, specification: Specification, dtype: str) -> None:
        self.dtype = dtype
        self._specification = specification
        original = specification.model
        try:
            with self._floatx():
                self._model = rebuild(specification, dtype)
                self._compile(original)
        except Exception as error:
            raise UnsupportedModelError(
                f"Keras cannot rebuild the model in {dtype} to compare with: {first_line(error)}",
                hint="Give custom classes a get_config(), or convert without verification (`verify=False`).",
            ) from error
        self._names = list(specification.named.variables)
        self._initial = [np.asarray(variable) for variable in original.variables]
        self._optimizer_initial = [np.asarray(variable) for variable in self._model.optimizer.variables]
        self._slot_names = self._name_slots()
        self._rate = tf.Variable(0.0, dtype=dtype, trainable=False)
        self._federated_loss = self._make_federated_loss()
        self._train = self._function(self._train_step)
        self._test = self._function(self._model.test_step)
        self._infer: Any = None
        self._gradient: Any = None

    def reset(self, initial: Mapping[str, NDArray[Any]] | None = None) -> None:
        """Goes back to the weights of the original model, or to given ones, with a fresh optimizer."""
        initial = initial or {}
        for name, variable, value in zip(self._names, self._model.variables, self._initial, strict=True):
            if variable.dtype.startswith("float"):
                variable.assign(np.asarray(initial.get(name, value), self.dtype))
        for variable, value in zip(self._model.optimizer.variables, self._optimizer_initial, strict=True):
            variable.assign(value)
        self.add_federated_terms(0.0, {})

    def add_federated_terms(self, mu: float, correction: Mapping[str, NDArray[Any]]) -> None:
        """Adds ``mu / 2 |w - w now|² + correction · w`` to the loss from now on; nothing where both are zero.

        Args:
            mu: of the proximal term.
            correction: for each weight that travels; missing ones are zero.
        """
        self._federated_loss.set(mu, correction)

    def train(
        self, batch: Batch, learning_rate: float, sample_weight: NDArray[np.float32] | None = None
    ) -> dict[str, float]:
        """Takes one step; returns Keras's loss and metrics of this batch."""
        # The step of a device is a float32 number.
        self._rate.assign(float(np.float32(learning_rate)))
        return self._call(self._train, batch, sample_weight)

    def evaluate(self, batch: Batch, sample_weight: NDArray[np.float32] | None = None) -> dict[str, float]:
        """Keras's loss and metrics of a batch, not training."""
        return self._call(self._test, batch, sample_weight)

    def gradient(self, batch: Batch) -> dict[str, NDArray[Any]]:
        """The gradient of Keras's loss of a batch in training, by the stable names of the weights that travel."""
        if self._gradient is None:
            self._gradient = self._function(self._gradient_step)
        with self._floatx():
            values = self._run(self._gradient, batch, None)
        return {name: np.asarray(value) for name, value in values.items()}

    def predict(self, batch: Batch) -> list[NDArray[Any]]:
        """The model's outputs for a batch, not training."""
        with self._floatx():
            if self._infer is None:
                self._infer = self._inference()
            outputs = self._infer(*(tf.constant(self._cast(array)) for array in batch.inputs))
        return [np.asarray(each) for each in outputs]

    def snapshot(self) -> Snapshot:
        """The present weights and optimizer slots."""
        return Snapshot(
            {name: np.array(variable) for name, variable in zip(self._names, self._model.variables, strict=True)},
            {
                name: np.array(variable)
                for name, variable in zip(self._slot_names, self._model.optimizer.variables, strict=True)
            },
        )

    def _train_step(self, data: Any) -> Any:
        optimizer = self._model.optimizer
        with learning_rate_of_steps(optimizer, self._rate), self._federated_loss.in_loss_of(self._model):
            return self._model.train_step(data)

    def _gradient_step(self, data: Any) -> Any:
        inputs, targets, weights = data
        model, own = self._model, self._shared_weights()
        with tf.GradientTape() as tape:
            predictions = model(inputs, training=True) if model._call_has_training_arg else model(inputs)
            loss = model._compute_loss(inputs, targets, predictions, sample_weight=weights, training=True)
        values = [variable.value for variable in own.values()]
        gradients = tape.gradient(loss, values, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return dict(zip(own, map(tf.convert_to_tensor, gradients)))

    def _shared_weights(self) -> dict[str, Any]:
        shared = set(map(self._specification.named.name_of, self._specification.federated_terms.weights))
        return {name: each for name, each in zip(self._names, self._model.variables, strict=True) if name in shared}

    def _make_federated_loss(self) -> FederatedLoss:
        federated_terms = self._specification.federated_terms
        return FederatedLoss(
            self._shared_weights() if federated_terms.reference or federated_terms.correction else {}, self.dtype
        )

    def _compile(self, original: Any) -> None:
        compiled = unscaled(original.optimizer)
        optimizer = type(compiled).from_config(compiled.get_config())
        loss, metrics = original._compile_loss, original._compile_metrics
        self._model.compile(
            optimizer=optimizer,
            loss=keras.tree.map_structure(_fresh, loss._user_loss),
            loss_weights=loss._user_loss_weights,
            metrics=None if metrics is None else keras.tree.map_structure(_fresh, metrics._user_metrics),
            weighted_metrics=None
            if metrics is None
            else keras.tree.map_structure(_fresh, metrics._user_weighted_metrics),
            jit_compile=False,
        )
        optimizer.build(self._model.trainable_variables)
        self._build_loss_and_metrics()

    def _build_loss_and_metrics(self) -> None:
        """Makes the variables of losses and metrics now: a function that makes some is traced twice."""
        specification = self._specification

        def symbolic(port: Port) -> keras.KerasTensor:
            return keras.KerasTensor((None, *port.shape[1:]), self._own_type(port.dtype))

        predictions = keras.tree.pack_sequence_as(
            specification.output_structure, [symbolic(port) for port in specification.outputs]
        )
        targets = specification.nest_targets([symbolic(port) for port in specification.targets])
        for each in (self._model._compile_loss, self._model._compile_metrics):
            if each is not None:
                each.build(targets, predictions)

    def _name_slots(self) -> list[str]:
        """The names that a model file gives to optimizer state."""
        stable = {id(variable): name for variable, name in zip(self._model.variables, self._names, strict=True)}
        weights = [(variable, stable[id(variable)]) for variable in self._model.trainable_variables]
        return unique(slot_name(slot, weights) for slot in self._model.optimizer.variables)

    def _function(self, step: Any) -> Any:
        specification = self._specification
        first, last = len(specification.inputs), len(specification.inputs) + len(specification.targets)

        def run(*tensors: tf.Tensor) -> dict[str, tf.Tensor]:
            inputs = specification.nest_inputs(tensors[:first])
            targets = specification.nest_targets(tensors[first:last])
            weight, seed = tensors[last:]
            # Keras broadcasts one weight a row over a loss for each position only if it has the loss's rank.
            predictions = [specification.outputs[port.output] for port in specification.targets]
            weights = specification.nest_targets([expand(weight, prediction) for prediction in predictions])
            self._model.reset_metrics()
            with hashed_random_numbers(seed, specification.batch_size):
                return dict(step((inputs, targets, weights)))

        signature = self._signature((*specification.inputs, *specification.targets))
        signature += [tf.TensorSpec([None], self.dtype), tf.TensorSpec([1], tf.int32)]
        return tf.function(run, input_signature=signature, autograph=False)

    def _inference(self) -> Any:
        specification, model = self._specification, self._model

        def run(*tensors: tf.Tensor) -> list[tf.Tensor]:
            inputs = specification.nest_inputs(tensors)
            outputs = model(inputs, training=False) if model._call_has_training_arg else model(inputs)
            return [tf.identity(each) for each in keras.tree.flatten(outputs)]

        return tf.function(run, autograph=False).get_concrete_function(*self._signature(specification.inputs))

    def _signature(self, ports: Sequence[Port]) -> list[tf.TensorSpec]:
        """With a dynamic batch, as Keras's own fit: with a static one, Keras adds columns as if they were rows."""
        return [tf.TensorSpec([None, *port.shape[1:]], self._own_type(port.dtype)) for port in ports]

    def _run(self, function: Any, batch: Batch, sample_weight: NDArray[np.float32] | None) -> dict[str, Any]:
        weight = np.ones(len(batch.inputs[0]), self.dtype) if sample_weight is None else sample_weight
        arrays = [self._cast(array) for array in (*batch.inputs, *batch.targets)]
        returned: dict[str, Any] = function(*arrays, self._cast(weight), np.array([batch.seed], np.int32))
        return returned

    def _call(self, function: Any, batch: Batch, sample_weight: NDArray[np.float32] | None) -> dict[str, float]:
        with self._floatx():  # traced in the first call
            logs = self._run(function, batch, sample_weight)
        return {self._stable_name(name): float(value) for name, value in logs.items()}

    def _stable_name(self, name: str) -> str:
        """The name of a metric in the file; Keras puts an output's name before it, which may be automatic."""
        outputs = sorted(getattr(self._model, "output_names", None) or [], key=len, reverse=True)
        output = next((each for each in outputs if name.startswith(f"{each}_")), None)
        return name if output is None else self._specification.names(output) + name.removeprefix(output)

    def _cast(self, array: NDArray[Any]) -> NDArray[Any]:
        return array.astype(self._own_type(array.dtype.name))

    def _own_type(self, dtype: str) -> str:
        return self.dtype if dtype == "float32" else dtype

    @contextlib.contextmanager
    def _floatx(self) -> Iterator[None]:
        before = keras.config.floatx()
        keras.config.set_floatx(self.dtype)
        try:
            yield
        finally:
            keras.config.set_floatx(before)


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
            return type(compiled).from_config(config)
    return compiled
