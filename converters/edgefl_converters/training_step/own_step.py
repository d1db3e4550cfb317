"""Runs a training step that a model computes in its own way (``train_step``, ``compute_loss``) and notes what it does.

The step itself is Keras's or the user's, called as ``fit`` calls it, with an optimizer and with metrics that are lent
to the model meanwhile. What is needed of it is one step of that optimizer.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf
from keras.src.optimizers.base_optimizer import BaseOptimizer
from keras.src.trainers.compile_utils import CompileLoss, CompileMetrics

from edgefl.errors import UnsupportedModelError
from edgefl_converters.models.own_training import kept_metrics, overridden, several_optimizers
from edgefl_converters.training_step.own_metrics import LOSS, OwnMetric, begun, flat_logs, noted_results

__all__ = ["Lent", "OwnStep", "Ran", "apply_of", "named_owner", "packed"]

Take = Callable[[list[Any], list[Any]], None]


@dataclass(frozen=True)
class OwnStep:
    """A model's own way to train.

    Attributes:
        owner: what of the model computes its steps, in words.
        packing: what `fit` gives a step: ``x``, ``xy`` or ``xyw``.
        test_packing: the same for ``test_step``; None where that cannot be called, so that the loss of an evaluation is
            that of a training step which is not taken.
        metrics: what a step returns beside the loss.
        lent: what the model is lent while it is traced.
    """

    owner: str
    packing: str
    test_packing: str | None
    metrics: tuple[OwnMetric, ...]
    lent: Lent


@dataclass(frozen=True)
class Ran:
    """The outcome of a step.

    Attributes:
        logs: what it returned, flat.
        loss: what it reports, or what its gradient was taken of; None where there is neither.
        rank: of what its gradient was taken of.
        results: identity of a tensor to the metric of which it is the result.
    """

    logs: Mapping[str, Any]
    loss: Any
    rank: int
    results: Mapping[int, Any]


def named_owner(model: Any) -> str:
    """Names in words what of a model computes its steps: ``VAE.train_step``."""
    names = overridden(model)
    if names:
        return f"{type(model).__name__}.{names[0]}"
    return f"the metric {kept_metrics(model)[0].name!r} that the model keeps"


def packed(packing: str, inputs: Any, targets: Any, weight: Any) -> Any:
    """Packs arrays as Keras gives them to a step."""
    if packing == "x":
        return (inputs,) if isinstance(inputs, (list, tuple)) else inputs
    return (inputs, targets) if packing == "xy" else (inputs, targets, weight)


class Lent:
    """An optimizer, losses and metrics of a model's own kinds, which are its own while a step runs.

    Args:
        model: compiled.
        optimizer: built, a copy of the compiled one.
        targets: symbolic, nested; None without.
        predictions: symbolic, nested.
    """

    def __init__(self, model: Any, optimizer: Any, targets: Any, predictions: Any) -> None:
        self.optimizer = optimizer
        self._model = model
        self._replaced: dict[str, Any] = {
            name: optimizer for name, value in vars(model).items() if value is model.optimizer
        }
        self._replaced["_loss_tracker"] = keras.metrics.Mean(name=LOSS)
        compiled_loss, compiled_metrics = model._compile_loss, model._compile_metrics
        if compiled_loss is not None:
            self._replaced["_compile_loss"] = CompileLoss(
                compiled_loss._user_loss, compiled_loss._user_loss_weights, output_names=compiled_loss.output_names
            )
        if compiled_metrics is not None:
            self._replaced["_compile_metrics"] = CompileMetrics(
                compiled_metrics._user_metrics,
                compiled_metrics._user_weighted_metrics,
                output_names=compiled_metrics.output_names,
            )
        for name in ("_compile_loss", "_compile_metrics") if targets is not None else ():
            if name in self._replaced:
                self._replaced[name].build(targets, predictions)
        with self.used():
            # A model's own list of metrics may lack those that Keras updates all the same.
            updated = [each for each in (model._loss_tracker, model._compile_metrics) if each is not None]
            updated += model._compile_loss.metrics if model._compile_loss is not None else []
            self.metrics = _single([*updated, *model.metrics, *kept_metrics(model)])

    @contextlib.contextmanager
    def used(self) -> Iterator[None]:
        """Has the model use what it is lent."""
        # Past Keras's __setattr__, which would make the metrics a part of the model.
        own = vars(self._model)
        before = {name: own[name] for name in self._replaced}
        own.update(self._replaced)
        try:
            yield
        finally:
            own.update(before)

    def train(self, data: Any, take: Take) -> Ran:
        """Runs ``train_step``.

        Args:
            data: as `packed` gives it.
            take: called once instead of the optimizer's ``apply``, with gradients of the loss and their variables.

        Raises:
            UnsupportedModelError: it takes no step of the optimizer, more than one, or one of another optimizer.
        """
        model, optimizer = self._model, self.optimizer
        taken = 0

        def apply(gradients: Sequence[Any], variables: Sequence[Any] | None = None) -> None:
            nonlocal taken
            taken += 1
            if taken > 1:
                raise UnsupportedModelError(
                    f"{type(model).__name__}.train_step takes several steps of its optimizer; a model file takes one.",
                    hint="Let it add its losses up, and take one step of self.optimizer on the gradient of the sum.",
                )
            scale = optimizer.loss_scale_factor
            unscaled = [each if each is None or scale is None else each / scale for each in gradients]
            take(unscaled, list(optimizer._trainable_variables if variables is None else variables))

        with _gradients_noted() as differentiated, _only(optimizer, apply, model):
            ran = self._ran(model.train_step, data, differentiated)
        if not taken:
            raise UnsupportedModelError(
                f"{type(model).__name__}.train_step takes no step of the model's optimizer.",
                hint="Let it call self.optimizer.apply(gradients, self.trainable_variables) once; variables that it "
                "changes otherwise are no training that a device could follow.",
            )
        return ran

    def test(self, data: Any) -> Ran:
        """Runs ``test_step``."""
        return self._ran(self._model.test_step, data, [])

    def _ran(self, step: Callable[[Any], Any], data: Any, differentiated: list[Any]) -> Ran:
        # A tf.function would be traced once and then repeat what it noted: its Python is called instead.
        step = getattr(step, "python_function", step)
        with self.used(), noted_results(self.metrics) as results:
            begun(self.metrics)
            logs = flat_logs(step(data))
            loss = logs.get(LOSS)
            last = keras.tree.flatten(differentiated[-1]) if differentiated else []
            if loss is None and last:
                loss = sum(map(tf.reduce_sum, last))
            rank = max((len(each.shape) for each in last), default=0)
            return Ran(logs, None if loss is None else tf.reduce_mean(loss), rank, dict(results))


def apply_of(optimizer: Any) -> Callable[[Sequence[Any], Sequence[Any]], None]:
    """The optimizer's own ``apply``, also while another one is in its place."""
    return lambda gradients, variables: type(optimizer).apply(optimizer, gradients, variables)


@contextlib.contextmanager
def _only(optimizer: Any, apply: Any, model: Any) -> Iterator[None]:
    """Replaces the ``apply`` of an optimizer, and refuses that of any other one."""
    original = BaseOptimizer.apply
    inner = getattr(optimizer, "optimizers", ())
    allowed = {id(each) for each in (optimizer, *(inner if isinstance(inner, (list, tuple)) else ()))}

    def of_class(self: Any, gradients: Any, variables: Any = None) -> Any:
        if id(self) not in allowed:
            names = [name for name, value in vars(model).items() if value is self]
            raise several_optimizers(model, names or [type(self).__name__])
        return original(self, gradients, variables)

    BaseOptimizer.apply = of_class
    vars(optimizer)["apply"] = apply
    try:
        yield
    finally:
        del vars(optimizer)["apply"]
        BaseOptimizer.apply = original


@contextlib.contextmanager
def _gradients_noted() -> Iterator[list[Any]]:
    """Notes of what gradients are taken."""
    noted: list[Any] = []
    original = tf.GradientTape.gradient

    def gradient(self: Any, target: Any, *args: Any, **kwargs: Any) -> Any:
        noted.append(target)
        return original(self, target, *args, **kwargs)

    tf.GradientTape.gradient = gradient
    try:
        yield noted
    finally:
        tf.GradientTape.gradient = original


def _single(metrics: Sequence[Any]) -> list[Any]:
    """Metrics that hold others replaced by these, each once."""
    single: dict[int, Any] = {}
    for each in metrics:
        inner = getattr(each, "metrics", None)
        for metric in inner if isinstance(inner, (list, tuple)) else [each]:
            single[id(metric)] = metric
    return list(single.values())
