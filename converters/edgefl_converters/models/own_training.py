"""Looks from outside at what a model brings to its training: methods that it overrides, metrics that it keeps."""

from __future__ import annotations

from typing import Any

import keras

from edgefl.errors import UnsupportedModelError

__all__ = ["brings_loss", "kept_metrics", "other_optimizers", "overridden", "require_one_optimizer"]

_METHODS = ("train_step", "test_step", "compute_loss", "compute_metrics")


def overridden(model: Any) -> tuple[str, ...]:
    """Those of Keras's methods of a training step that the model's class has of its own."""
    return tuple(name for name in _METHODS if getattr(type(model), name) is not getattr(keras.Model, name))


def brings_loss(model: Any) -> bool:
    """Tells whether a model needs no compiled loss: it computes one itself."""
    return bool({"train_step", "compute_loss"} & set(overridden(model)))


def kept_metrics(model: Any) -> list[Any]:
    """Metrics that the model or one of its layers keeps and updates, beside those that Keras was compiled with."""
    compiled = [model._loss_tracker, model._compile_metrics]
    compiled += model._compile_loss.metrics if model._compile_loss is not None else []
    layers = [layer for layer in model._flatten_layers(include_self=False) if not isinstance(layer, keras.Model)]
    kept = [*model.metrics, *model._metrics, *(metric for layer in layers for metric in layer._metrics)]
    known = {id(each) for each in compiled}
    return list({id(each): each for each in kept if each is not None and id(each) not in known}.values())


def other_optimizers(model: Any) -> list[str]:
    """Attributes that hold an optimizer which is not the one that the model was compiled with."""
    return [
        name
        for name, value in vars(model).items()
        if isinstance(value, keras.optimizers.Optimizer) and value is not model.optimizer
    ]


def require_one_optimizer(model: Any) -> None:
    """Refuses training steps of several optimizers, as those of adversarial networks are.

    Raises:
        UnsupportedModelError: names the step, the optimizers and what could be converted instead.
    """
    others = other_optimizers(model) if "train_step" in overridden(model) else []
    if others:
        raise several_optimizers(model, others)


def several_optimizers(model: Any, others: list[str]) -> UnsupportedModelError:
    """The error for a training step that does not only use the model's own optimizer."""
    parts = [name for name, value in vars(model).items() if isinstance(value, keras.Model)]
    instead = (
        f"Convert one of the models that it holds ({', '.join(parts)}) by itself, compiled with a loss and an optimizer"
        if parts
        else "Convert a model of each part that is to be trained"
    )
    return UnsupportedModelError(
        f"{type(model).__name__}.train_step uses optimizers of its own ({', '.join(others)}); a model file takes steps "
        "of the optimizer that the model was compiled with.",
        hint=f"{instead}, or let train_step take one step of self.optimizer on one loss.",
    )
