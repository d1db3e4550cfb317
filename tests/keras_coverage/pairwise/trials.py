"""Tries what subjects make: does Keras train it, does it convert, does it train as in Keras? Several are one model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import keras
import numpy as np
import tensorflow as tf

from edgefl.errors import EdgeflError
from edgefl_converters.building.building import build
from edgefl_converters.lint import require_clean
from edgefl_converters.training_step.precision import in_float32
from edgefl_converters.verification.agreement import check_agreement
from keras_coverage.pairwise.subjects import Built, Settings, Subject

__all__ = ["Case", "Trial", "accepted_by_keras", "complaint_about", "complaints", "numbers_for"]

_ROWS = 4
_TOGETHER = 16
"""Cases in one model: what a conversion costs whatever is in it is paid once; most have nothing to complain about."""


class Case(Protocol):
    """What can be tried."""

    @property
    def key(self) -> str:
        """What tells it from all others, in each process."""

    @property
    def alone(self) -> bool:
        """Whether a model holds one of its kind only."""

    def make(self) -> Built:
        """Its part of a model."""


@dataclass(frozen=True)
class Trial:
    """One case of a subject.

    Attributes:
        subject: the class.
        settings: a value of each of its arguments.
    """

    subject: Subject
    settings: Settings

    @property
    def key(self) -> str:
        """The class and what it is called with."""
        return f"{self.subject.name}({', '.join(f'{name}={_word(each)}' for name, each in self.settings.items())})"

    @property
    def alone(self) -> bool:
        """As its subject says."""
        return self.subject.alone

    def make(self) -> Built:
        """Its part of a model."""
        return self.subject.build(self.subject.api, self.settings)


def _word(value: Any) -> str:
    if isinstance(value, keras.optimizers.schedules.LearningRateSchedule):
        return type(value).__name__
    return getattr(value, "__name__", None) or repr(value)


def accepted_by_keras(
    trial: Case, learns: Callable[[Any, Sequence[Any]], bool] = lambda model, gradients: True
) -> bool:
    """Tells whether Keras takes a step of it: all values are finite, those of an evaluation and after the step too.

    Args:
        trial: what to train.
        learns: what is asked besides, of the model and of the gradients of its trainable variables; None where there
            is none.
    """
    keras.backend.clear_session()
    keras.utils.set_random_seed(1)
    try:
        with tf.device("CPU:0"):
            return _trains(trial, learns)
    except Exception:  # whatever Keras says, it says no
        return False


def _trains(trial: Case, learns: Callable[[Any, Sequence[Any]], bool]) -> bool:
    part = trial.make()
    model = keras.Model(list(part.inputs), list(part.outputs))
    inputs = [numbers_for(each) for each in part.inputs]
    loss = part.compiled.get("loss", "mse")
    function = keras.losses.get(loss) if isinstance(loss, str) else loss
    (output,) = keras.tree.flatten(model(inputs, training=True))
    if output.shape[0] != len(inputs[0]):
        return False
    target = _targets(loss, output)

    def step(*given: Any) -> Any:
        with tf.GradientTape() as tape:
            (found,) = keras.tree.flatten(model(list(given), training=True))
            value = tf.reduce_sum(function(target, found)) + sum(model.losses)
        return value, found, tape.gradient(value, model.trainable_variables)

    value, output, gradients = step(*inputs)
    tf.function(step, autograph=False).get_concrete_function(*inputs)  # as `fit` does, which refuses more
    (evaluated,) = keras.tree.flatten(model(inputs, training=False))
    optimizer = part.compiled.get("optimizer") or keras.optimizers.SGD(1e-6)
    optimizer.apply(gradients, model.trainable_variables)
    afterwards, _, _ = step(*inputs)
    for metric in part.compiled.get("metrics", ()):
        metric.update_state(target, output)
        value = value + tf.reduce_sum(_in_graph(metric)(target, output))
    tensors = [
        value,
        function(target, evaluated),
        afterwards,
        *(tf.convert_to_tensor(each) for each in gradients if each is not None),
    ]
    return all(bool(tf.reduce_all(tf.math.is_finite(each))) for each in tensors) and learns(model, gradients)


def _in_graph(metric: Any) -> Any:
    """A metric as ``fit`` updates it, where some ask Python what only a graph knows; its variables must be there."""

    def update(target: Any, output: Any) -> Any:
        metric.update_state(target, output)
        return metric.result()

    return tf.function(update, autograph=False)


def numbers_for(given: Any) -> np.ndarray:
    """Made-up rows for an input of a model."""
    generator, shape = np.random.default_rng(1), (given.shape[0] or _ROWS, *given.shape[1:])
    if str(given.dtype).startswith("int"):
        return generator.integers(0, 5 if len(shape) > 1 else 2, shape).astype(given.dtype)
    return generator.standard_normal(shape).astype(given.dtype)


def _targets(loss: Any, output: Any) -> np.ndarray:
    name, generator = getattr(loss, "name", loss).lower(), np.random.default_rng(2)
    if "sparse" in name or "generalized" in name:
        return generator.integers(0, output.shape[-1], output.shape[:-1])
    if "categorical" in name and "hinge" not in name:
        return np.eye(output.shape[-1], dtype=np.float32)[generator.integers(0, output.shape[-1], output.shape[:-1])]
    if "binary" in name or "hinge" in name:
        return generator.integers(0, 2, output.shape).astype(np.float32)
    return generator.uniform(0.1, 1.0, output.shape).astype(np.float32)


def complaints(trials: Sequence[Case]) -> Iterator[tuple[Case, str]]:
    """Says of each what is wrong with it, or nothing; those of one subject are tried together, and halved if need be.

    Args:
        trials: of one subject, or such as have compiled alike.
    """
    size = 1 if trials and trials[0].alone else _TOGETHER
    for start in range(0, len(trials), size):
        yield from _halved(trials[start : start + size])


def _halved(trials: Sequence[Case]) -> Iterator[tuple[Case, str]]:
    complaint = complaint_about(trials)
    if not complaint or len(trials) == 1:
        yield from ((each, complaint) for each in trials)
        return
    middle = len(trials) // 2
    yield from _halved(trials[:middle])
    yield from _halved(trials[middle:])


def complaint_about(trials: Sequence[Case]) -> str:
    """Says what is wrong with cases that are parts of one model; nothing if they train as in Keras.

    Args:
        trials: as `complaints` takes them.
    """
    keras.backend.clear_session()
    keras.utils.set_random_seed(1)
    try:
        with in_float32(_model([each.make() for each in trials])) as model:
            built = build(model, batch_size=_ROWS)
            require_clean(built.data, built.manifest)
            report = check_agreement(model, built.data)
    except EdgeflError as error:
        return f"{type(error).__name__}: {error.message}"
    except Exception as error:  # a traceback is what must not happen to anybody
        return f"TRACEBACK {type(error).__name__}: {error}"
    for runtime in report.runtimes:
        if not runtime.ran:
            return f"{runtime.name} did not run: {runtime.reason}"
        if failed := [*map(str, runtime.failures), *runtime.broken_laws]:
            return f"{runtime.name}: {failed[:3]}"
    return ""


def _model(parts: Sequence[Built]) -> keras.Model:
    outputs = [tensor for part in parts for tensor in part.outputs]
    joined = {
        name: [part.compiled[name] for part in parts]
        for name in ("loss", "metrics", "weighted_metrics")
        if name in parts[0].compiled
    }
    optimizer = parts[0].compiled.get("optimizer") or keras.optimizers.SGD(0.1)
    if not joined:
        outputs = [outputs[0] if len(outputs) == 1 else keras.layers.Concatenate()(outputs)]
    model = keras.Model([given for part in parts for given in part.inputs], outputs)
    model.compile(optimizer, **{"loss": ["mse"], **joined})
    return model
