"""Optimizers, with their settings."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, optimizers
from keras.optimizers import schedules

from keras_coverage.models import training
from keras_coverage.rows import base, covers


def optimized(optimizer: Any) -> keras.Model:
    """A small network that it trains."""
    return training(layers.Dense(3), "mse", optimizer=optimizer)


def row(api: Any, rate: float, *variants: dict[str, Any]) -> None:
    """A row for an optimizer with each of the settings."""
    covers(
        api,
        {
            ", ".join(f"{key}={getattr(value, 'name', value)}" for key, value in settings.items()) or "as it is": (
                lambda settings=settings: optimized(api(**{"learning_rate": rate, **settings}))
            )
            for settings in variants
        },
    )


row(
    optimizers.SGD,
    0.1,
    {},
    {"momentum": 0.9},
    {"momentum": 0.9, "nesterov": True},
    {"clipnorm": 0.1},
    {"clipvalue": 0.05},
    {"global_clipnorm": 0.1},
    {"weight_decay": 0.01},
    {"use_ema": True, "ema_overwrite_frequency": 2},
    {"gradient_accumulation_steps": 2},
)
covers(
    optimizers.Adam,
    {
        "as it is": lambda: optimized(optimizers.Adam(0.01)),
        "amsgrad": lambda: optimized(optimizers.Adam(0.01, amsgrad=True)),
        **{
            name: (lambda schedule=schedule: optimized(optimizers.Adam(schedule)))
            for name, schedule in {
                "exponential decay": schedules.ExponentialDecay(0.01, 5, 0.9),
                "cosine decay with warm-up": schedules.CosineDecay(0.001, 8, warmup_target=0.01, warmup_steps=4),
                "cosine decay with restarts": schedules.CosineDecayRestarts(0.01, 4),
                "inverse time decay": schedules.InverseTimeDecay(0.01, 3, 0.5),
                "piecewise constant": schedules.PiecewiseConstantDecay([3, 6], [0.01, 0.005, 0.001]),
                "polynomial decay": schedules.PolynomialDecay(0.01, 8),
            }.items()
        },
    },
)
row(optimizers.AdamW, 0.01, {}, {"weight_decay": 0.1})
row(optimizers.RMSprop, 0.01, {}, {"centered": True, "momentum": 0.5})
row(optimizers.Adagrad, 0.05, {})
row(optimizers.Adadelta, 1.0, {})
row(optimizers.Adamax, 0.01, {})
row(optimizers.Nadam, 0.01, {})
row(optimizers.Ftrl, 0.05, {}, {"l1_regularization_strength": 0.01, "l2_shrinkage_regularization_strength": 0.1})
row(optimizers.Lion, 0.001, {})
row(optimizers.Lamb, 0.01, {})
row(optimizers.Adafactor, 0.01, {}, {"relative_step": False})
row(optimizers.Muon, 0.01, {})
row(optimizers.ScheduleFreeAdamW, 0.01, {})
covers(
    optimizers.MultiOptimizer,
    {"SGD and Adam": lambda: optimized(_several())},
)
base(optimizers.OptimizerMap, "Says which optimizer of a MultiOptimizer trains which variable")
base(optimizers.Optimizer, "The class that all of them extend")
covers(
    optimizers.LossScaleOptimizer,
    {"around SGD, which is what trains": lambda: optimized(optimizers.LossScaleOptimizer(optimizers.SGD(0.1)))},
)


def _several() -> Any:
    rest, kernels = optimizers.SGD(0.1), optimizers.Adam(0.01)
    return optimizers.MultiOptimizer(optimizers.OptimizerMap(rest, {".*kernel": kernels}))
