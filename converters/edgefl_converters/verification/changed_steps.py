"""Measures how far a training step of one file is from that of another one, in what it changes of the weights.

With plain SGD that is the error of the gradient. Adam's first step is little more than the signs of the gradient, of
which small numbers change easily: an error of e of the gradient is one of about 2 sqrt(atan(e) / pi) there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgefl.manifest import ModelManifest
from edgefl.model_file import ModelFile
from edgefl_converters.verification.made_up_batches import Batch
from edgefl_converters.verification.runtimes import Call

__all__ = ["StepChange", "moved_weights", "step_calls", "step_change"]

_SEED = 20260103
_MOVED = 0.05
"""By so much of its size each weight is moved before the step, by so much itself where it is zero: where one adapter is
zero, the other one has no gradient."""
_RATE = 1.0
"""Small ones would be lost in the rounding of the weights."""
_LEAST = 1e-12
"""A weight of which a step changes a smaller share, squared, is not asked for its error: that is rounding alone."""


class StepChange(NamedTuple):
    """Compares two files by a step.

    Attributes:
        error: norm of the difference of what the steps changed, relative to that of what one changed.
        worst: the same of the weight for which it is largest.
        worst_weight: the name of that.
    """

    error: float
    worst: float
    worst_weight: str


def moved_weights(data: bytes) -> dict[str, NDArray[np.float32]]:
    """The parameters of a file by name, as some training may have left them."""
    file, generator = ModelFile(data), np.random.default_rng(_SEED)
    moved = {}
    for parameter in file.manifest.parameters:
        initial = file.initial_value(parameter)
        if parameter.role == "weight":
            size = float(np.sqrt(np.mean(np.square(initial, dtype=np.float64)))) or 1.0
            initial = initial + np.float32(_MOVED * size) * generator.normal(size=initial.shape).astype(np.float32)
        moved[parameter.name] = np.asarray(initial, np.float32)
    return moved


def step_calls(
    manifest: ModelManifest, moved: Mapping[str, NDArray[np.float32]], batches: Sequence[Batch]
) -> list[Call]:
    """Makes the calls of a step with each batch, each from the same weights."""
    calls: list[Call] = []
    for batch in batches:
        given: dict[str, Any] = {
            **moved,
            **dict(zip(manifest.inputs, batch.inputs, strict=True)),
            **{target.name: array for target, array in zip(manifest.targets, batch.targets, strict=True)},
            "sample_weight": np.ones(manifest.batch_size, np.float32),
            "learning_rate": np.array([_RATE], np.float32),
            "seed": np.array([batch.seed], np.int32),
        }
        for name in ("set_weights", "reset_optimizer", "train", "get_weights"):
            # What algorithms ask for besides is 0.
            wanted = {
                spec.tensor: np.asarray(given.get(spec.name, np.zeros(spec.shape)), spec.dtype).reshape(spec.shape)
                for spec in manifest.signatures[name].inputs
            }
            calls.append(Call(name, wanted, fresh=not calls))
    return calls


def step_change(
    manifest: ModelManifest,
    moved: Mapping[str, NDArray[np.float32]],
    before: Sequence[Mapping[str, NDArray[Any]]],
    after: Sequence[Mapping[str, NDArray[Any]]],
) -> StepChange:
    """Compares the answers of two files to `step_calls`."""
    tensors = {spec.name: spec.tensor for spec in manifest.signatures["get_weights"].outputs}
    squares = {}
    for parameter in manifest.parameters:
        if parameter.role != "weight":
            continue
        name = parameter.name
        one, other = (
            np.stack(
                [np.ravel(each[tensors[name]]).astype(np.float64) - np.ravel(moved[name]) for each in answers[3::4]]
            )
            for answers in (before, after)
        )
        squares[name] = float(np.square(one - other).sum()), float(np.square(one).sum())
    differences, sizes = map(sum, zip(*squares.values(), strict=True))
    errors = {name: _relative(*each) for name, each in squares.items() if not each[1] < _LEAST * sizes}
    worst = max(errors, key=lambda name: (not np.isfinite(errors[name]), errors[name]))
    return StepChange(_relative(differences, sizes), errors[worst], worst)


def _relative(difference: float, size: float) -> float:
    return float(np.sqrt(difference / max(size, 1e-60)))
