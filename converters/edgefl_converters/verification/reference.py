"""A Keras model that takes Keras's own training steps in TensorFlow, in float32 or float64.

Keras computes in float64 itself where it can, in a copy of the model. Where it cannot, what it computes in float32 is
widened (`Widening`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from edgefl.errors import UnsupportedModelError
from edgefl_converters.models.naming import slot_name, unique
from edgefl_converters.training_step.keras_rewrites.rewriting import rewritten_keras
from edgefl_converters.training_step.lean_graphs import lean_graphs
from edgefl_converters.training_step.ports import Port
from edgefl_converters.training_step.specification import Specification
from edgefl_converters.training_step.variables import present_value
from edgefl_converters.verification.compared_models import OUTPUT, compared_model
from edgefl_converters.verification.federated_losses import FederatedLoss
from edgefl_converters.verification.made_up_batches import Batch
from edgefl_converters.verification.seeded_random_ops import hashed_random_numbers
from edgefl_converters.verification.widening import Widening

__all__ = ["Reference", "Snapshot"]

Arrays = dict[str, NDArray[Any]]

_OF_EVALUATION = 0
"""The seed by which a file draws where it takes none."""
_REPAIRED = ("addition", "functions", "weighted_confusions")
"""Rewrites of Keras that hold here too. It contradicts itself: biases of as many filters as there are positions, with
the channels first, are added along the positions in ``fit``, and in ``predict``, where TensorFlow fuses it, not. It
refuses weights of rows for some metrics, with which devices train. And what is decorated with `tf.function` would keep
the random numbers of this trace."""


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
        specification: of the original model, which is as it was when this has been closed.
        dtype: ``float32`` or ``float64``: what it computes in.
        weighted: whether Keras is given weights of rows, which has other values for some where they are all 1.
        widened: whether steps that Keras has in this type, float32, are done in float64.

    Raises:
        UnsupportedModelError: there is no such model in this type.
    """

    def __init__(
        self, specification: Specification, dtype: str, *, weighted: bool = True, widened: bool = False
    ) -> None:
        self.dtype = dtype
        self._widening = Widening() if widened else None
        self._specification = specification
        with self._floatx():
            self._compared = compared_model(specification, dtype, weighted=weighted)
        self._model, self._optimizer = self._compared.model, self._compared.optimizer
        self._names = list(specification.named.variables)
        self._initial = [present_value(each.value) for each in specification.model.variables]
        self._optimizer_initial = [np.array(variable) for variable in self._optimizer.variables]
        self._slot_names = self._name_slots()
        self._rate = tf.Variable(0.0, dtype=dtype, trainable=False)
        self._federated_loss = self._make_federated_loss()
        self._train = self._function(self._train_step)
        self._test = self._function(self._compared.test)
        self._infer: Any = None
        self._gradient: Any = None

    def reset(self, initial: Mapping[str, NDArray[Any]] | None = None) -> None:
        """Goes back to the weights of the original model, or to given ones, with a fresh optimizer.

        Args:
            initial: of all that steps can change.
        """
        initial = initial or {}
        for name, variable, value in zip(self._names, self._model.variables, self._initial, strict=True):
            if variable.dtype.startswith("float") and (name in initial or not initial):
                variable.assign(np.asarray(initial.get(name, value), self.dtype))
        for variable, value in zip(self._optimizer.variables, self._optimizer_initial, strict=True):
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
        return self._call(self._test, replace(batch, seed=_OF_EVALUATION), sample_weight)

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
            # An evaluation has them already, where it is Keras's own: nothing more is traced.
            returned = self._run(self._test, replace(batch, seed=_OF_EVALUATION), None) if batch.targets else {}
            seen = [value for name, value in sorted(returned.items()) if name.startswith(OUTPUT)]
            if seen:
                return [np.asarray(each) for each in seen]
            if self._infer is None:
                self._infer = self._inference()
            outputs = self._infer(*(tf.constant(self._cast(array)) for array in batch.inputs))
        return [np.asarray(each) for each in outputs]

    def snapshot(self) -> Snapshot:
        """The present weights and optimizer slots."""
        return Snapshot(
            {name: self._value(variable) for name, variable in zip(self._names, self._model.variables, strict=True)},
            {
                name: self._value(variable)
                for name, variable in zip(self._slot_names, self._optimizer.variables, strict=True)
            },
        )

    def _value(self, variable: Any) -> NDArray[Any]:
        return np.array(variable) if self._widening is None else self._widening.value(variable)

    def close(self) -> None:
        """Puts the original model back."""
        self._compared.close()

    def _train_step(self, inputs: Any, targets: Any, weight: tf.Tensor) -> Any:
        return self._compared.train(inputs, targets, weight, self._rate, self._federated_loss)

    def _gradient_step(self, inputs: Any, targets: Any, weight: tf.Tensor) -> Any:
        own = self._shared_weights()
        return dict(zip(own, self._compared.gradient(inputs, targets, weight, list(own.values()))))

    def _shared_weights(self) -> dict[str, Any]:
        shared = set(map(self._specification.named.name_of, self._specification.federated_terms.weights))
        return {name: each for name, each in zip(self._names, self._model.variables, strict=True) if name in shared}

    def _make_federated_loss(self) -> FederatedLoss:
        federated_terms = self._specification.federated_terms
        return FederatedLoss(
            self._shared_weights() if federated_terms.reference or federated_terms.correction else {}, self.dtype
        )

    def _name_slots(self) -> list[str]:
        """The names that a model file gives to optimizer state."""
        stable = {id(variable): name for variable, name in zip(self._model.variables, self._names, strict=True)}
        weights = [(variable, stable[id(variable)]) for variable in self._model.trainable_variables]
        return unique(slot_name(slot, weights) for slot in self._optimizer.variables)

    def _function(self, step: Any) -> Any:
        specification = self._specification
        first, last = len(specification.inputs), len(specification.inputs) + len(specification.targets)

        def run(*tensors: tf.Tensor) -> dict[str, tf.Tensor]:
            inputs = specification.nesting.of_inputs(tensors[:first])
            targets = specification.nest_targets(tensors[first:last])
            weight, seed = tensors[last:]
            with rewritten_keras(*_REPAIRED), hashed_random_numbers(seed, specification.batch_size):
                return dict(step(inputs, targets, weight))

        signature = self._signature((*specification.inputs, *specification.targets))
        signature += [tf.TensorSpec([None], self.dtype), tf.TensorSpec([1], tf.int32)]
        function = tf.function(run, input_signature=signature, autograph=False)
        return function if self._widening is None else self._in_float64(self._widening, function)

    def _in_float64(self, widening: Widening, function: Any) -> Callable[..., Any]:
        """Traces a function when it is first called, as TensorFlow does, and widens it."""
        made: list[Callable[..., Any]] = []

        def call(*arrays: Any) -> Any:
            if not made:
                made.append(widening.function(function.get_concrete_function()))
            return made[0](*arrays)

        return call

    def _inference(self) -> Any:
        specification, model = self._specification, self._model

        def run(*tensors: tf.Tensor) -> list[tf.Tensor]:
            inputs = specification.nesting.of_inputs(tensors)
            seed = tf.constant([_OF_EVALUATION])
            with rewritten_keras(*_REPAIRED), hashed_random_numbers(seed, specification.batch_size):
                outputs = model(inputs, training=False) if model._call_has_training_arg else model(inputs)
            return [tf.identity(each) for each in keras.tree.flatten(outputs)]

        traced = tf.function(run, autograph=False).get_concrete_function(*self._signature(specification.inputs))
        return traced if self._widening is None else self._widening.function(traced)

    def _signature(self, ports: Sequence[Port]) -> list[tf.TensorSpec]:
        """With a dynamic batch, as Keras's own fit: with a static one, Keras adds columns as if they were rows."""
        return [tf.TensorSpec([None, *port.shape[1:]], self._own_type(port.dtype)) for port in ports]

    def _run(self, function: Any, batch: Batch, sample_weight: NDArray[np.float32] | None) -> dict[str, Any]:
        weight = np.ones(len(batch.inputs[0]), self.dtype) if sample_weight is None else sample_weight
        arrays = [self._cast(array) for array in (*batch.inputs, *batch.targets)]
        try:
            returned: dict[str, Any] = function(*arrays, self._cast(weight), np.array([batch.seed], np.int32))
        except tf.errors.UnimplementedError as error:
            if "NCHW" not in error.message and "NCDHW" not in error.message:
                raise
            raise UnsupportedModelError(
                "Keras cannot compute layers with data_format='channels_first' on this processor without oneDNN, which "
                "is switched off here to save memory, so that there is nothing to compare the file with.",
                hint="Set TF_ENABLE_ONEDNN_OPTS=1 in the environment, or verify nothing (`verify=False`).",
            ) from error
        return returned

    def _call(self, function: Any, batch: Batch, sample_weight: NDArray[np.float32] | None) -> dict[str, float]:
        with self._floatx():  # traced in the first call
            logs = self._run(function, batch, sample_weight)
        own = {name: found for name, found in logs.items() if not name.startswith(OUTPUT)}
        return {name: value for log, found in own.items() for name, value in _values(self._stable_name(log), found)}

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
        """The type for all that Keras makes, whose graphs are run a few times only."""
        before = keras.config.floatx()
        keras.config.set_floatx(self.dtype)
        try:
            with lean_graphs():
                yield
        finally:
            keras.config.set_floatx(before)


def _values(name: str, found: Any) -> Iterator[tuple[str, float]]:
    """Names what is logged: a number, or the entries of a vector by their places."""
    array = np.asarray(found)
    if array.ndim == 0:
        yield name, float(array)
    for place, value in enumerate(array.tolist() if array.ndim else ()):
        yield f"{name}[{place}]", float(value)
